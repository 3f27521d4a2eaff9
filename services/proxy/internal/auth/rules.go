package auth

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
)

// principalRules are Kafka's ssl.principal.mapping.rules (KIP-371).
type principalRules []principalRule

// principalRule is one RULE, or DEFAULT when full is nil.
type principalRule struct {
	full        *regexp.Regexp // the pattern, held to the whole name
	first, rest *regexp.Regexp // the pattern at the start of the name, and further on
	replacement []piece
	fold        func(string) string
}

// piece is literal text, or a group of the match when group ≥ 0.
type piece struct {
	text  string
	group int
}

// apply returns the name of the first rule that matches dn as a whole.
func (rs principalRules) apply(dn string) (string, bool) {
	for _, r := range rs {
		if r.full == nil {
			return dn, true
		}
		if r.full.MatchString(dn) {
			return r.fold(r.replaceAll(dn)), true
		}
	}
	return "", false
}

// replaceAll is String.replaceAll of Java, which Kafka calls once a rule has
// matched. It differs from Go's where a pattern can match nothing: ".*" with
// replacement "x" makes "xx", one for the text and one for the end.
func (r *principalRule) replaceAll(s string) string {
	var out strings.Builder
	for re, at := r.first, 0; at <= len(s); re = r.rest {
		m := re.FindStringSubmatchIndex(s[at:])
		if m == nil {
			out.WriteString(s[at:])
			break
		}
		out.WriteString(s[at : at+m[0]])
		for _, p := range r.replacement {
			switch {
			case p.group < 0:
				out.WriteString(p.text)
			case m[2*p.group] >= 0:
				out.WriteString(s[at+m[2*p.group] : at+m[2*p.group+1]])
			}
		}
		next := at + m[1]
		if m[0] == m[1] { // an empty match: step over one character
			_, size := utf8.DecodeRuneInString(s[next:])
			out.WriteString(s[next : next+size])
			next += max(1, size)
		}
		at = next
	}
	return out.String()
}

// parsePrincipalRules reads "RULE:pattern/replacement/[L|U]" and "DEFAULT",
// separated by commas. No rules mean DEFAULT.
func parsePrincipalRules(text string) (principalRules, error) {
	rest := strings.TrimSpace(text)
	if rest == "" {
		return principalRules{{}}, nil
	}
	var rules principalRules
	for rest != "" {
		var rule principalRule
		var err error
		before := rest
		switch {
		case rest[0] == ',': // Kafka passes over empty rules
			rest = strings.TrimSpace(rest[1:])
			continue
		case strings.HasPrefix(rest, "DEFAULT"):
			rest = rest[len("DEFAULT"):]
		case strings.HasPrefix(rest, "RULE:"):
			rule, rest, err = parseRule(rest[len("RULE:"):])
		default:
			err = errors.New("want RULE:pattern/replacement/[L|U] or DEFAULT")
		}
		if rest = strings.TrimSpace(rest); err == nil && rest != "" && rest[0] != ',' {
			err = errors.New("want a comma after it")
		}
		if err != nil {
			return nil, fmt.Errorf("principalRules: rule %d, %q: %w", len(rules)+1, before, err)
		}
		rules = append(rules, rule)
	}
	if len(rules) == 0 {
		return nil, errors.New("principalRules: only commas: no certificate would ever have a name")
	}
	return rules, nil
}

func parseRule(s string) (r principalRule, rest string, err error) {
	pattern, s, ok1 := cutSlash(s)
	replacement, s, ok2 := cutSlash(s)
	if !ok1 || !ok2 {
		return r, s, errors.New("want two slashes after the pattern and the replacement; a slash inside is \\/")
	}
	r.fold = func(s string) string { return s }
	switch {
	case strings.HasPrefix(s, "L"):
		r.fold, s = lower, s[1:]
	case strings.HasPrefix(s, "U"):
		r.fold, s = upper, s[1:]
	}
	if err := javaOnly(pattern); err != nil {
		return r, s, err
	}
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return r, s, fmt.Errorf("%w (look-around, back-references and possessive quantifiers of Java are not supported)", err)
	}
	likeJava(tree)
	whole := tree.String()
	notAtStart(tree)
	for _, c := range []struct {
		to   **regexp.Regexp
		text string
	}{{&r.first, whole}, {&r.full, `\A(?:` + whole + `)\z`}, {&r.rest, tree.String()}} {
		if *c.to, err = regexp.Compile(c.text); err != nil {
			return r, s, err
		}
	}
	r.replacement, err = parseReplacement(replacement, r.first)
	return r, s, err
}

// lower and upper map as Java does, where one letter may become two: strings
// has no such cases. A Caser keeps state, so each call has its own.
func lower(s string) string { return cases.Lower(language.English).String(s) }

func upper(s string) string { return cases.Upper(language.English).String(s) }

// cutSlash cuts at the first slash that no backslash escapes.
func cutSlash(s string) (before, after string, found bool) {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '/':
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

// likeJava narrows the dot: Java's stops at more line ends than RE2's.
func likeJava(n *syntax.Regexp) {
	if n.Op == syntax.OpAnyCharNotNL {
		*n = syntax.Regexp{Op: syntax.OpCharClass, Rune: []rune{0, '\n' - 1, '\n' + 1, '\r' - 1, '\r' + 1, 0x84, 0x86, 0x2027, 0x202a, unicode.MaxRune}}
	}
	for _, sub := range n.Sub {
		likeJava(sub)
	}
}

// notAtStart makes a pattern for text that does not begin where the name does.
func notAtStart(n *syntax.Regexp) {
	if n.Op == syntax.OpBeginText || n.Op == syntax.OpBeginLine {
		*n = syntax.Regexp{Op: syntax.OpNoMatch}
	}
	for _, sub := range n.Sub {
		notAtStart(sub)
	}
}

// javaOnly refuses what Go would compile to something else than Java does. What
// Go cannot compile at all needs no care here.
func javaOnly(pattern string) error {
	inClass, start := false, 0
	for i := 0; i < len(pattern); i++ {
		switch rest := pattern[i:]; {
		case rest[0] == '\\':
			if len(rest) > 1 {
				switch c := rest[1]; {
				case c >= '1' && c <= '9':
					return fmt.Errorf("back-reference \\%c: not supported", c)
				case c == 'Q':
					return errors.New(`\Q…\E: escape each character instead`)
				case c == 'v':
					return errors.New(`\v: Java and RE2 mean different things by it`)
				}
			}
			i++
		case inClass:
			switch {
			case rest[0] == '[':
				return errors.New("a class within a class: not supported")
			case strings.HasPrefix(rest, "&&"):
				return errors.New("an intersection of classes (&&): not supported")
			case rest[0] == ']' && i > start:
				inClass = false
			}
		case rest[0] == '[':
			inClass = true
			if strings.HasPrefix(rest, "[^") {
				i++
			}
			start = i + 1
		case strings.HasPrefix(rest, "(?"):
			for _, look := range []string{"(?=", "(?!", "(?<=", "(?<!", "(?>"} {
				if strings.HasPrefix(rest, look) {
					return fmt.Errorf("%s…): look-around and atomic groups are not supported", look)
				}
			}
			if strings.HasPrefix(rest, "(?P") {
				return errors.New("(?P…): not Java's syntax")
			}
			if strings.HasPrefix(rest, "(?<") {
				continue
			}
			if flags, _, _ := strings.Cut(rest[2:], ")"); strings.Contains(strings.SplitN(flags, ":", 2)[0], "U") {
				return errors.New("(?U): Java and RE2 mean different things by it")
			}
		}
	}
	return nil
}

// parseReplacement reads Java's $1, ${name} and \x. As in Kafka, a number above
// the last group loses digits until it is one, or else is plain text.
func parseReplacement(s string, re *regexp.Regexp) (out []piece, err error) {
	text := func(t string) {
		if n := len(out); n > 0 && out[n-1].group < 0 {
			out[n-1].text += t
			return
		}
		out = append(out, piece{t, -1})
	}
	for s != "" {
		i := strings.IndexAny(s, `\$`)
		if i < 0 {
			text(s)
			break
		}
		if i > 0 {
			text(s[:i])
		}
		c := s[i]
		if s = s[i+1:]; s == "" {
			return nil, fmt.Errorf("replacement ends in %c", c)
		}
		if c == '\\' {
			_, n := utf8.DecodeRuneInString(s)
			text(s[:n])
			s = s[n:]
			continue
		}
		if name, ok := strings.CutPrefix(s, "{"); ok {
			name, after, ok := strings.Cut(name, "}")
			g := re.SubexpIndex(name)
			if !ok || g < 0 {
				return nil, fmt.Errorf("replacement names no group of the pattern: $%s", s)
			}
			out, s = append(out, piece{group: g}), after
			continue
		}
		n := 0
		for n < len(s) && s[n] >= '0' && s[n] <= '9' {
			n++
		}
		if n == 0 {
			return nil, fmt.Errorf("replacement: $%s: want a number or {name} after $; a plain dollar is \\$", s)
		}
		if s[0] != '0' && re.NumSubexp() == 0 {
			return nil, fmt.Errorf("replacement: $%s: the pattern has no groups", s[:n])
		}
		used := 0
		for k := n; k > 0; k-- {
			if g, err := strconv.Atoi(s[:k]); err == nil && g <= re.NumSubexp() {
				used = k
				out = append(out, piece{group: g})
				break
			}
		}
		if used == 0 {
			text("$" + s[:n])
			used = n
		}
		s = s[used:]
	}
	return out, nil
}
