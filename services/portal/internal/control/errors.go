package control

import (
	"fmt"
	"strings"

	"tollgate.internal/pkg/resource"
)

// NotFound: there is no such thing, or it is another tenant's.
type NotFound struct {
	Key  resource.Key
	What string // what else there is not, within the object: secret 7f3a
}

func (e *NotFound) Error() string {
	if e.What != "" {
		if e.Key.Kind == "" {
			return "there is no " + e.What
		}
		return fmt.Sprintf("there is no %s of %s", e.What, e.Key)
	}
	return fmt.Sprintf("there is no %s", e.Key)
}

// Conflict: the object is not at the revision that the change was made for.
type Conflict struct {
	Key        resource.Key
	Want, Have int64 // Have 0: there is no such object
}

func (e *Conflict) Error() string {
	if e.Have == 0 {
		return fmt.Sprintf("%s does not exist, and the change is for its revision %d: leave the revision out to create it", e.Key, e.Want)
	}
	return fmt.Sprintf("%s is at revision %d, and the change is for revision %d: read it again, and make the change to that", e.Key, e.Have, e.Want)
}

// Exists: it was to be created only if it was not there.
type Exists struct {
	Key      resource.Key
	Revision int64
}

func (e *Exists) Error() string {
	return fmt.Sprintf("%s exists already, at revision %d", e.Key, e.Revision)
}

// Invalid: what was sent cannot be accepted. It says everything that is wrong.
type Invalid struct{ Problems resource.Problems }

func (e *Invalid) Error() string { return e.Problems.Error() }

// invalid is an Invalid of one field.
func invalid(field, format string, args ...any) *Invalid {
	return &Invalid{resource.Problems{{Field: field, Message: fmt.Sprintf(format, args...)}}}
}

// Referenced: it cannot be deleted because others need it.
type Referenced struct {
	Key   resource.Key
	By    []resource.Key // the first of them
	Total int64
}

func (e *Referenced) Error() string {
	return fmt.Sprintf("%s is needed by %s: delete or change that first", e.Key, list(e.By, e.Total))
}

// list names the first of total keys.
func list(keys []resource.Key, total int64) string {
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.String()
	}
	text := strings.Join(names, ", ")
	if more := total - int64(len(keys)); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// Refused: the state of things does not admit it. The text says what would.
type Refused struct{ Text string }

func (e *Refused) Error() string { return e.Text }

// Forbidden: it is there for whoever asks, and not theirs to change.
type Forbidden struct{ Text string }

func (e *Forbidden) Error() string { return e.Text }

func refused(format string, args ...any) *Refused { return &Refused{fmt.Sprintf(format, args...)} }

// Unauthenticated: a token that is not good. Why is for the log: whoever has the
// token learns from the API only that it is not good.
type Unauthenticated struct{ Why string }

func (e *Unauthenticated) Error() string { return "token is not accepted: " + e.Why }
