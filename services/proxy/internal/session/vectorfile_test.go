package session

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/pkg/nodeapi"
	"tollgate.internal/services/proxy/internal/view"
)

// A protocol vector is a file testdata/<key>_<name>/v<versions>_<what>.txtar: a
// sentence that says what is shown, then sections in the order of events.
//
//	-- session.json --            who the client is, see vectorSession; first, if at all
//	-- client_request.json --     the client sends this
//	-- broker_request.json --     the broker must have received this, and nothing else
//	-- broker_response.json --    it answers this; without the section it hangs up
//	-- far_request.json --        a broker of the other cluster must have received this
//	-- far_response.json --       it answers this, as above
//	-- client_response.json --    the client must have received this
//	-- closed --                  or its connection is closed, with this in the reason
//
// "client_request Metadata v9.json" is a message of another key or version than the
// path says. A section body is the kmsg struct as JSON; absent fields have the
// schema's defaults. Where the struct has
//
//	an error code       its Kafka name may stand
//	text                "text of NAME" is what Kafka's stock text for the code is
//	a topic id          "virtual NAME", "physical NAME" or "nobody's"
//	a session id        "session" is the id that the gateway has issued
//	bytes               text, or {"Batch": …}, {"Subscription": …}, {"Assignment": …}
//	UnknownTags         {"NUMBER": "text"}
type vector struct {
	path      string
	key       int16
	low, high int16
	session   vectorSession
	events    []vectorEvent
}

// vectorSession is the setting of a vector.
type vectorSession struct {
	Cluster    string            // "standard", "partner" or "split"; see vectorResources
	Anchor     bool              // of split: home has an anchor topic
	Principal  string            // User:ANONYMOUS
	ACLs       []string          // "ALLOW READ topic orders", "DENY WRITE topic prefixed or"; of the principal. null: everything is allowed
	SuperUser  bool              // the principal is one
	Node       *int32            // what the client dialled; 3
	ClientID   *string           // "vector"
	HeaderTags map[string]string // of the client's request header
	Policies   []string          // "NAME: SPEC", as in resources; of type produce
	Login      bool              // the client has not logged in yet
	Portal     *vectorPortal     // keeps the ACLs; null: files do
}

// vectorPortal expects a change of ACLs, or is not there.
type vectorPortal struct {
	Change nodeapi.ACLChange
	Answer nodeapi.ACLChanged
	Down   bool
}

func (p *vectorPortal) ChangeACLs(_ context.Context, change *nodeapi.ACLChange) (*nodeapi.ACLChanged, error) {
	switch {
	case p.Down:
		return nil, errors.New("connection refused")
	case !reflect.DeepEqual(change, &p.Change):
		got, _ := json.Marshal(change) // strings and numbers
		return nil, fmt.Errorf("the portal is asked for %s", got)
	}
	return &p.Answer, nil
}

// vectorEvent is one section.
type vectorEvent struct {
	what     string // its name up to the first dot or space
	key      int16  // of the message, -1: the path's
	version  int16
	body     []byte
	hangs    bool // broker_request: no answer follows
	fromLine string
}

var vectorName = regexp.MustCompile(`^v(\d+)(?:-(\d+))?_[a-z0-9_]+\.txtar$`)

// loadVectors reads all of testdata.
func loadVectors(t testing.TB) []*vector {
	t.Helper()
	paths, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) == 0 {
		t.Fatal("no vectors")
	}
	var all []*vector
	for _, path := range paths {
		v, err := loadVector(path)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		all = append(all, v)
	}
	return all
}

func loadVector(path string) (*vector, error) {
	dir, file := filepath.Split(filepath.ToSlash(path))
	number, name, _ := strings.Cut(filepath.Base(dir), "_")
	key, err := strconv.Atoi(number)
	if err != nil {
		return nil, err
	}
	if want := snake(kmsg.NameForKey(int16(key))); name != want {
		return nil, fmt.Errorf("key %d is %q", key, want)
	}
	m := vectorName.FindStringSubmatch(file)
	if m == nil {
		return nil, fmt.Errorf("the name is not v<version>[-<version>]_<what>.txtar")
	}
	v := &vector{path: path, key: int16(key)}
	v.low, v.high = atoi16(m[1]), atoi16(m[1])
	if m[2] != "" {
		v.high = atoi16(m[2])
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	sentence, sections := parseTxtar(b)
	if strings.TrimSpace(sentence) == "" {
		return nil, fmt.Errorf("it does not begin with a sentence")
	}
	for i, s := range sections {
		name := strings.TrimSuffix(s.name, ".json")
		e := vectorEvent{key: -1, body: s.body, fromLine: s.name}
		e.what, name, _ = strings.Cut(name, " ")
		switch e.what {
		case "session":
			d := json.NewDecoder(bytes.NewReader(s.body))
			d.DisallowUnknownFields()
			if err := d.Decode(&v.session); err != nil || i > 0 {
				return nil, fmt.Errorf("session.json, which comes first: %w", err)
			}
			continue
		case "client_request", "broker_response", "far_response", "client_response", "closed":
		case "broker_request", "far_request":
			answer := strings.TrimSuffix(e.what, "request") + "response"
			e.hangs = i+1 == len(sections) || !strings.HasPrefix(sections[i+1].name, answer)
		default:
			return nil, fmt.Errorf("section %q", s.name)
		}
		if name != "" {
			other, version, ok := strings.Cut(name, " v")
			if !ok {
				return nil, fmt.Errorf("section %q", s.name)
			}
			for k := range int16(kmsg.MaxKey + 1) {
				if kmsg.NameForKey(k) == other {
					e.key = k
				}
			}
			if e.key < 0 {
				return nil, fmt.Errorf("section %q: no such key", s.name)
			}
			e.version = atoi16(version)
		}
		v.events = append(v.events, e)
	}
	if len(v.events) == 0 || v.events[0].what != "client_request" {
		return nil, fmt.Errorf("it does not begin with client_request.json")
	}
	return v, nil
}

// request makes the message of e as version has it.
func (v *vector) message(e *vectorEvent, version int16, env *vectorEnv) (any, error) {
	key := v.key
	if e.key >= 0 {
		key, version = e.key, e.version
	}
	req := kmsg.RequestForKey(key)
	var msg any = req
	if strings.HasSuffix(e.what, "response") {
		msg = req.ResponseKind()
	}
	msg.(interface{ SetVersion(int16) }).SetVersion(version)
	d := json.NewDecoder(bytes.NewReader(e.body))
	d.UseNumber()
	var body any
	if err := d.Decode(&body); err != nil {
		return nil, fmt.Errorf("%s: %w", e.fromLine, err)
	}
	if err := env.fill(reflect.ValueOf(msg).Elem(), body); err != nil {
		return nil, fmt.Errorf("%s: %w", e.fromLine, err)
	}
	msg.(interface{ SetVersion(int16) }).SetVersion(version)
	return msg, nil
}

// vectorEnv is what names in vectors stand for.
type vectorEnv struct {
	virtual func(name string) ([16]byte, bool)
	session int32
}

// fill puts JSON into a kmsg struct, with the schema's defaults at every level,
// which encoding/json does not know about.
func (env *vectorEnv) fill(to reflect.Value, from any) error {
	if to.CanAddr() {
		if d, ok := to.Addr().Interface().(interface{ Default() }); ok {
			d.Default()
		}
		if tags, ok := to.Addr().Interface().(*kmsg.Tags); ok {
			fields, _ := from.(map[string]any)
			for tag, value := range fields {
				n, err := strconv.Atoi(tag)
				if err != nil {
					return err
				}
				tags.Set(uint32(n), []byte(fmt.Sprint(value)))
			}
			return nil
		}
	}
	if from == nil {
		to.SetZero()
		return nil
	}
	switch to.Kind() {
	case reflect.Pointer:
		to.Set(reflect.New(to.Type().Elem()))
		return env.fill(to.Elem(), from)
	case reflect.Struct:
		fields, ok := from.(map[string]any)
		if !ok {
			return fmt.Errorf("%v for a %v", from, to.Type())
		}
		for name, value := range fields {
			f := to.FieldByName(name)
			if !f.IsValid() {
				return fmt.Errorf("%v has no field %s", to.Type(), name)
			}
			if err := env.fill(f, value); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	case reflect.Array:
		id, err := env.topicID(from)
		to.Set(reflect.ValueOf(id))
		return err
	case reflect.Slice:
		if to.Type().Elem().Kind() == reflect.Uint8 {
			b, err := env.bytes(from)
			to.SetBytes(b)
			return err
		}
		list, ok := from.([]any)
		if !ok {
			return fmt.Errorf("%v for a list", from)
		}
		to.Set(reflect.MakeSlice(to.Type(), len(list), len(list)))
		for i := range list {
			if err := env.fill(to.Index(i), list[i]); err != nil {
				return fmt.Errorf("%d: %w", i, err)
			}
		}
		return nil
	case reflect.String:
		s, ok := from.(string)
		if !ok {
			return fmt.Errorf("%v for text", from)
		}
		if name, ok := strings.CutPrefix(s, "text of "); ok {
			err := kafkaError(name)
			if err == nil {
				return fmt.Errorf("no error %s", name)
			}
			s = err.Description
		}
		to.SetString(s)
		return nil
	case reflect.Bool:
		b, ok := from.(bool)
		if !ok {
			return fmt.Errorf("%v for a bool", from)
		}
		to.SetBool(b)
		return nil
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if n, ok := from.(json.Number); ok {
			i, err := n.Int64()
			if err == nil && to.OverflowInt(i) {
				err = fmt.Errorf("%v is too large", n)
			}
			to.SetInt(i)
			return err
		}
		s, _ := from.(string)
		if s == "session" {
			to.SetInt(int64(env.session))
			return nil
		}
		err := kafkaError(s)
		if err == nil {
			return fmt.Errorf("%v for a number", from)
		}
		to.SetInt(int64(err.Code))
		return nil
	}
	return fmt.Errorf("fields of type %v are not supported", to.Type())
}

func (env *vectorEnv) topicID(from any) (id [16]byte, err error) {
	s, _ := from.(string)
	what, name, _ := strings.Cut(s, " ")
	switch {
	case what == "virtual":
		if id, ok := env.virtual(name); ok {
			return id, nil
		}
		return id, fmt.Errorf("the client sees no topic %q", name)
	case what == "physical":
		return topicIDOf(name), nil
	case s == "nobody's":
		return topicIDOf("?"), nil
	case s == "zero":
		return id, nil
	}
	return id, fmt.Errorf("%v for a topic id", from)
}

func (env *vectorEnv) bytes(from any) ([]byte, error) {
	if s, ok := from.(string); ok {
		return []byte(s), nil
	}
	fields, _ := from.(map[string]any)
	for kind, value := range fields {
		switch kind {
		case "Batch":
			var b struct {
				Size, Records          int64
				Transactional, Control bool
				Codec, ProducerID      int64
			}
			if err := env.fill(reflect.ValueOf(&b).Elem(), value); err != nil {
				return nil, err
			}
			out := batch(int(max(b.Size, batchHeader)), uint32(b.Records))
			if b.Transactional {
				out[batchAttributes+1] |= batchTransactional
			}
			if b.Control {
				out[batchAttributes+1] |= 0x20
			}
			out[batchAttributes+1] |= byte(b.Codec)
			if b.ProducerID != 0 {
				binary.BigEndian.PutUint64(out[batchProducerID:], uint64(b.ProducerID))
			}
			return out, nil
		case "Subscription":
			m := kmsg.NewConsumerMemberMetadata()
			err := env.fill(reflect.ValueOf(&m).Elem(), value)
			return m.AppendTo(nil), err
		case "Assignment":
			m := kmsg.NewConsumerMemberAssignment()
			err := env.fill(reflect.ValueOf(&m).Elem(), value)
			return m.AppendTo(nil), err
		}
	}
	return nil, fmt.Errorf("%v for bytes", from)
}

func kafkaError(name string) *kerr.Error {
	for code := int16(-1); code < 200; code++ {
		if err := kerr.TypedErrorForCode(code); err != nil && err.Message == name {
			return err
		}
	}
	return nil
}

type txtarSection struct {
	name string
	body []byte
}

// parseTxtar splits a file at its lines "-- name --".
func parseTxtar(b []byte) (comment string, sections []txtarSection) {
	for line := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "-- "); ok && strings.HasSuffix(name, " --") {
			sections = append(sections, txtarSection{name: strings.TrimSuffix(name, " --")})
			continue
		}
		if len(sections) == 0 {
			comment += line
			continue
		}
		s := &sections[len(sections)-1]
		s.body = append(s.body, line...)
	}
	return comment, sections
}

// snake writes OffsetForLeaderEpoch as offset_for_leader_epoch.
func snake(name string) string {
	name = regexp.MustCompile(`([a-z])([A-Z])`).ReplaceAllString(strings.Replace(name, "ACLs", "Acls", 1), "${1}_$2")
	return strings.ToLower(regexp.MustCompile(`([A-Z])([A-Z][a-z])`).ReplaceAllString(name, "${1}_$2"))
}

func atoi16(s string) int16 {
	n, err := strconv.ParseInt(s, 10, 16)
	if err != nil {
		panic(err)
	}
	return int16(n)
}

// seeds are the messages of one kind in the vectors of a key, in every version they
// are for, with what they name turned into what table has: seeds for fuzzing.
func seeds(t testing.TB, key int16, what string, table *view.Table) (messages []any) {
	t.Helper()
	names := strings.NewReplacer("standard.orders", "open.orders", "lent", "a", "shop.orders.v2", longName)
	env := vectorEnv{virtual: func(name string) ([16]byte, bool) {
		if topic := table.Topic(name); topic != nil {
			return topic.ID, true
		}
		return topicIDOf("?"), true
	}}
	for _, v := range loadVectors(t) {
		for _, e := range v.events {
			if v.key != key || e.what != what || e.key >= 0 {
				continue
			}
			e.body = []byte(names.Replace(string(e.body)))
			for version := v.low; version <= v.high; version++ {
				msg, err := v.message(&e, version, &env)
				if err != nil {
					t.Fatalf("%s: %v", v.path, err)
				}
				messages = append(messages, msg)
			}
		}
	}
	if len(messages) == 0 {
		t.Fatalf("no %s of %s", what, kmsg.NameForKey(key))
	}
	return messages
}

// requestBody is what follows a request's header, whose tags must be none.
func requestBody(frame []byte, flexible bool) ([]byte, error) {
	h, err := parseHeader(frame)
	if err != nil {
		return nil, err
	}
	if err := h.rest(frame); err != nil {
		return nil, err
	}
	body := frame[h.body:]
	if flexible {
		if len(body) == 0 || body[0] != 0 {
			return nil, fmt.Errorf("the header has tags")
		}
		body = body[1:]
	}
	if string(h.clientID) == adminClient {
		return nil, fmt.Errorf("the broker takes the gateway for its admin client")
	}
	return body, nil
}

// responseFrame is an answer as it is on the wire.
func responseFrame(resp kmsg.Response, correlationID uint32) []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 4), correlationID)
	if resp.IsFlexible() && kmsg.Key(resp.Key()) != kmsg.ApiVersions {
		b = append(b, 0)
	}
	b = resp.AppendTo(b)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// describe prints a message for a failure.
func describe(msg any) string {
	b, err := json.Marshal(msg)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
