package export

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/portal/internal/control"
)

// contentType says, in a header of each record, that its value is an event as a whole:
// the structured mode of CloudEvents' Kafka binding.
const contentType = "application/cloudevents+json; charset=UTF-8"

// cloudEvent is an event of CloudEvents 1.0 in its JSON format.
type cloudEvent struct {
	SpecVersion     string          `json:"specversion"`
	ID              string          `json:"id"`
	Source          string          `json:"source"`
	Type            string          `json:"type"`
	Subject         string          `json:"subject"`
	Time            time.Time       `json:"time"`
	DataContentType string          `json:"datacontenttype"`
	PartitionKey    string          `json:"partitionkey"` // of the extension of that name
	Data            json.RawMessage `json:"data"`
}

// shortened is an entry that is too large for a record as a whole.
type shortened struct {
	control.Entry
	Omitted []string `json:"omitted"`
}

// event is an entry on its way.
type event struct {
	entry  control.Entry
	record *kgo.Record
	short  bool // without what the object was and is
}

// events makes events of entries.
type events struct {
	source string // a URI reference
	store  string // the store's name for itself: what tells its revisions from another's
}

func newEvents(deployment, store string) events {
	return events{source: "/tollgate/" + url.PathEscape(deployment), store: store}
}

func (m events) of(e control.Entry) (*event, error) {
	made := &event{entry: e}
	return made, m.encode(made)
}

// shorten leaves out what the object was and is.
func (m events) shorten(e *event) error {
	e.short = true
	return m.encode(e)
}

func (m events) encode(made *event) error {
	e := made.entry
	var data any = e
	if made.short {
		less := shortened{Entry: e}
		if e.Before != nil {
			less.Before, less.Omitted = nil, append(less.Omitted, "before")
		}
		if e.After != nil {
			less.After, less.Omitted = nil, append(less.Omitted, "after")
		}
		data = less
	}
	text, err := encode(data)
	if err != nil {
		return err
	}
	keep := partitionKey(e.Key())
	value, err := encode(cloudEvent{
		SpecVersion: "1.0", ID: fmt.Sprintf("%s/%d.%d", m.store, e.Revision, e.Seq), Source: m.source,
		Type: "tollgate." + e.Kind + "." + string(e.Action), Subject: subject(e.Key()), Time: e.Time,
		DataContentType: "application/json", PartitionKey: keep, Data: text,
	})
	if err != nil {
		return err
	}
	made.record = &kgo.Record{
		Key: []byte(keep), Value: value,
		Headers: []kgo.RecordHeader{{Key: "content-type", Value: []byte(contentType)}},
	}
	return nil
}

// encode is JSON as the API writes it.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	out := json.NewEncoder(&b)
	out.SetEscapeHTML(false)
	if err := out.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// subject is the object's key as a path.
func subject(key resource.Key) string {
	if key.Scope == "" {
		return key.Kind + "/" + key.Name
	}
	return key.Kind + "/" + key.Scope + "/" + key.Name
}

// partitionKey is what an object stands within, or itself. It never changes while the
// object has its name, so that the object's events keep their order; and events of a
// virtual cluster keep theirs with those of what is in it.
func partitionKey(key resource.Key) string {
	if kind, _ := resource.KindOf(key.Kind); kind.Scope != "" && key.Scope != "" {
		return kind.Scope + "/" + key.Scope
	}
	return subject(key)
}

// size is about what an event takes in a batch that is not compressed, and never less.
func (e *event) size() int {
	return len(e.record.Key) + len(e.record.Value) + len(contentType) + 100
}
