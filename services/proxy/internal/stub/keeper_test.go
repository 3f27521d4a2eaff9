package stub

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
)

func TestStubsAreMadeAndConfirmed(t *testing.T) {
	withBed(t, func(t *testing.T, b *bed) {
		k := b.keeper(Settings{})
		settle(t, k, time.Millisecond)
		k.Want([]Want{b.want("orders", 3), b.want("bills", 1)})
		if k.Current().Settled() {
			t.Error("settled before anything was done")
		}
		settle(t, k, time.Second)
		confirmed(t, b, k, map[string]int{"orders": 3, "bills": 1})
		if s := k.Status(); s.Counts[Confirmed] != 2 || s.Totals != (Totals{Created: 2}) || len(s.Stubs) != 2 || s.Stubs[0].Alias != "bills" {
			t.Errorf("status %+v", s)
		}
		info := b.home.TopicInfo(nameOf("orders"))
		if info.NumReplicas != 1 || *info.Configs["cleanup.policy"] != "delete" {
			t.Errorf("made as %+v", info)
		}
		// What one has, the other may be made later.
		k.Want([]Want{b.want("orders", 5), b.want("bills", 1)})
		if st, ok := k.Current().Stub(nameOf("orders")); !ok || st.Partitions != 3 {
			t.Errorf("while it is extended: %+v, %t", st, ok)
		}
		settle(t, k, time.Second)
		confirmed(t, b, k, map[string]int{"orders": 5, "bills": 1})
		k.Want([]Want{b.want("bills", 1)})
		settle(t, k, time.Second)
		if st, ok := k.Current().Stub(nameOf("orders")); ok {
			t.Errorf("not wanted any more: %+v", st)
		}
		if b.home.TopicInfo(nameOf("orders")) == nil {
			t.Error("the stub is gone with the wish")
		}
	})
}

// The pointer says that nothing has changed.
func TestNothingChangesWhileNothingHappens(t *testing.T) {
	withBed(t, func(t *testing.T, b *bed) {
		k := b.keeper(Settings{})
		wants := []Want{b.want("bills", 1), b.want("orders", 3)}
		k.Want(wants)
		settle(t, k, time.Second)
		s, requests := k.Current(), count(b.home, kmsg.CreateTopics, kmsg.CreatePartitions, kmsg.DeleteTopics)
		for range 100 {
			k.Want([]Want{b.want("orders", 3), b.want("bills", 1)})
			k.Want(wants)
			b.home.ShufflePartitionLeaders()
			time.Sleep(10 * time.Second)
		}
		if k.Current() != s {
			t.Errorf("another snapshot: %+v", k.Status())
		}
		if n := requests.total(); n != 0 {
			t.Errorf("%d requests to change home", n)
		}
		if n := testing.AllocsPerRun(10, func() { k.Want(wants) }); n != 0 {
			t.Errorf("the same wish costs %v allocations", n)
		}
	})
}

// A node that starts finds what it needs: one look, and no request to change home.
func TestStubsThatAreThereAreUsed(t *testing.T) {
	withBed(t, func(t *testing.T, b *bed) {
		first := b.keeper(Settings{})
		first.Want([]Want{b.want("orders", 3)})
		settle(t, first, time.Second)
		first.Close()
		// Groups on the topic's cluster forbid making a stub, not using one.
		b.commitOn(t, b.foreignUp, "acme.readers")
		requests := count(b.home, kmsg.CreateTopics, kmsg.CreatePartitions)
		second := b.keeper(Settings{})
		second.Want([]Want{b.want("orders", 3)})
		settle(t, second, 10*time.Millisecond)
		confirmed(t, b, second, map[string]int{"orders": 3})
		if n := requests.total(); n != 0 {
			t.Errorf("%d requests to change home", n)
		}
	})
}

// Many nodes do the same at the same moment: there is one stub of each, nobody is
// refused, and most of them find it done.
func TestSeveralNodesKeepTheSameStubs(t *testing.T) {
	withBed(t, func(t *testing.T, b *bed) {
		const nodes, stubs = 5, 450
		requests := count(b.home, kmsg.CreateTopics, kmsg.CreatePartitions)
		var wants, more []Want
		sizes := make(map[string]int)
		for i := range stubs {
			alias := fmt.Sprintf("topic-%03d", i)
			wants, more = append(wants, b.want(alias, 4)), append(more, b.want(alias, 6))
			sizes[alias] = 6
		}
		var keepers []*Keeper
		for range nodes {
			k := b.keeper(Settings{})
			k.Want(wants)
			keepers = append(keepers, k)
		}
		for _, k := range keepers {
			settle(t, k, 10*time.Second)
		}
		for _, k := range keepers {
			k.Want(more)
		}
		total := Totals{}
		for _, k := range keepers {
			settle(t, k, 10*time.Second)
			confirmed(t, b, k, sizes)
			total.Created += k.Status().Totals.Created
		}
		if total.Created != stubs {
			t.Errorf("%d stubs made, want %d", total.Created, stubs)
		}
		// 3 requests of at most 200 stubs are needed for each; not every node sends them.
		if n := requests.total(); n < 6 || n >= 6*nodes {
			t.Errorf("%d requests to change home by %d nodes", n, nodes)
		}
		if n := b.lines.count("level=WARN"); n != 0 {
			t.Errorf("%d warnings", n)
		}
	})
}

func TestRequestsStaySmall(t *testing.T) {
	withBed(t, func(t *testing.T, b *bed) {
		var last time.Time
		for _, key := range []kmsg.Key{kmsg.CreateTopics, kmsg.CreatePartitions} {
			b.home.ControlKey(int16(key), func(req kmsg.Request) (kmsg.Response, error, bool) {
				topics, partitions := 0, 0
				switch req := req.(type) {
				case *kmsg.CreateTopicsRequest:
					for _, t := range req.Topics {
						topics, partitions = topics+1, partitions+int(t.NumPartitions)
					}
				case *kmsg.CreatePartitionsRequest:
					for range req.Topics {
						topics, partitions = topics+1, partitions+30
					}
				}
				if topics > 200 || partitions > 2000 {
					t.Errorf("%v of %d topics with %d partitions", key.Name(), topics, partitions)
				}
				if now := time.Now(); now.Sub(last) < 100*time.Millisecond {
					t.Errorf("%v %v after the last one", key.Name(), now.Sub(last))
				}
				last = time.Now()
				return nil, nil, false
			})
		}
		var wants, more []Want
		sizes := make(map[string]int)
		for i := range 350 {
			n := []int{1, 10, 30}[i%3]
			alias := fmt.Sprintf("topic-%03d", i)
			wants, more = append(wants, b.want(alias, n)), append(more, b.want(alias, n+30))
			sizes[alias] = n + 30
		}
		k := b.keeper(Settings{})
		k.Want(wants)
		settle(t, k, 20*time.Second)
		k.Want(more)
		settle(t, k, 20*time.Second)
		confirmed(t, b, k, sizes)
	})
}

// A stub is used when every broker knows it: whichever a group's coordinator is.
func TestAStubIsUsedWhenEveryBrokerShowsIt(t *testing.T) {
	withBed(t, func(t *testing.T, b *bed) {
		k := b.keeper(Settings{})
		late := b.home.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Nodes: []int32{1}, Topic: nameOf("orders"), Err: kerr.UnknownTopicOrPartition, Count: -1})
		k.Want([]Want{b.want("orders", 3)})
		time.Sleep(time.Minute)
		if st, ok := k.Current().Stub(nameOf("orders")); ok || k.Current().Settled() || k.Current().Refused(nameOf("orders")) != nil {
			t.Errorf("used: %+v", st)
		}
		late.Remove()
		settle(t, k, 2*time.Second)
		confirmed(t, b, k, map[string]int{"orders": 3})

		// So are more partitions.
		id := b.home.TopicInfo(nameOf("orders")).TopicID
		var behind atomic.Bool
		behind.Store(true)
		b.home.ControlKey(int16(kmsg.Metadata), func(req kmsg.Request) (kmsg.Response, error, bool) {
			r := req.(*kmsg.MetadataRequest)
			if b.home.CurrentNode() != 2 || len(r.Topics) == 0 || !behind.Load() {
				return nil, nil, false
			}
			b.home.KeepControl()
			resp := r.ResponseKind().(*kmsg.MetadataResponse)
			resp.Topics = []kmsg.MetadataResponseTopic{{Topic: r.Topics[0].Topic, TopicID: id, Partitions: make([]kmsg.MetadataResponseTopicPartition, 3)}}
			return resp, nil, true
		})
		k.Want([]Want{b.want("orders", 5)})
		time.Sleep(time.Minute)
		if st, _ := k.Current().Stub(nameOf("orders")); st.Partitions != 3 || k.Current().Settled() {
			t.Errorf("%d partitions used while a broker knows 3", st.Partitions)
		}
		behind.Store(false)
		settle(t, k, 2*time.Second)
		confirmed(t, b, k, map[string]int{"orders": 5})
	})
}

// A broker that does not answer is waited for, but not for ever: it cannot be asked
// for groups either. Stubs that are in use stay.
func TestASilentBrokerIsNotWaitedForForEver(t *testing.T) {
	withBed(t, func(t *testing.T, b *bed) {
		k := b.keeper(Settings{})
		k.Want([]Want{b.want("orders", 3)})
		settle(t, k, time.Second)
		before := k.Current()
		var silent atomic.Bool
		silent.Store(true)
		mute(b.home, 2, kmsg.Metadata, silent.Load)
		time.Sleep(2 * time.Minute)
		if k.Current() != before {
			t.Errorf("a silent broker changes what is known: %+v", k.Status())
		}
		silent.Store(false)
		time.Sleep(time.Minute)
		silent.Store(true)
		mute(b.home, 2, kmsg.Metadata, silent.Load)
		begun := time.Now()
		k.Want([]Want{b.want("orders", 3), b.want("bills", 1)})
		settle(t, k, 30*time.Second)
		if d := time.Since(begun); d < 15*time.Second {
			t.Errorf("used %v after the broker fell silent", d)
		}
		confirmed(t, b, k, map[string]int{"orders": 3, "bills": 1})
		// From then on it costs nobody time.
		k.Want([]Want{b.want("orders", 3), b.want("bills", 1), b.want("returns", 2)})
		settle(t, k, 5*time.Second)
		confirmed(t, b, k, map[string]int{"orders": 3, "bills": 1, "returns": 2})
	})
}

// A node that starts while a broker of home is frozen uses the stubs that the others
// show.
func TestASilentBrokerDoesNotHideWhatIsThere(t *testing.T) {
	withBed(t, func(t *testing.T, b *bed) {
		first := b.keeper(Settings{})
		first.Want([]Want{b.want("orders", 3)})
		settle(t, first, time.Second)
		first.Close()
		mute(b.home, 2, kmsg.Metadata, func() bool { return true })
		second := b.keeper(Settings{})
		second.Want([]Want{b.want("orders", 3)})
		settle(t, second, 2500*time.Millisecond)
		confirmed(t, b, second, map[string]int{"orders": 3})
		// What is new it may not know yet.
		second.Want([]Want{b.want("orders", 5)})
		time.Sleep(8 * time.Second)
		confirmed(t, b, second, map[string]int{"orders": 3})
		settle(t, second, 30*time.Second)
		confirmed(t, b, second, map[string]int{"orders": 5})
	})
}

// Whoever deletes a stub takes the offsets with it, but not the topic from the tenant:
// it is shown as it was until there is a new one.
func TestADeletedStubIsMadeAgain(t *testing.T) {
	for name, repair := range map[string]func(b *bed){
		"at once": func(*bed) {},
		"after a time in which home is busy": func(b *bed) {
			n := 0
			b.answerCreate(func(*kmsg.CreateTopicsRequestTopic) (int16, string) {
				if n++; n > 5 {
					return 0, ""
				}
				return kerr.ThrottlingQuotaExceeded.Code, "later"
			})
		},
		"also when groups have appeared on its cluster": func(b *bed) { b.commitOn(b.t, b.foreignUp, "acme.readers") },
	} {
		t.Run(name, func(t *testing.T) {
			withBed(t, func(t *testing.T, b *bed) {
				k := b.keeper(Settings{})
				k.Want([]Want{b.want("orders", 3), b.want("bills", 1)})
				settle(t, k, time.Second)
				old, _ := k.Current().Stub(nameOf("orders"))
				repair(b)
				b.delete(t, "orders")
				until(t, k, 30*time.Second, "another id", func(s *Snapshot) bool {
					st, ok := s.Stub(nameOf("orders"))
					if !ok || st.Partitions != 3 || s.Refused(nameOf("orders")) != nil {
						t.Errorf("meanwhile the stub is %+v, %t: %v", st, ok, s.Refused(nameOf("orders")))
					}
					return st.ID != old.ID
				})
				settle(t, k, time.Second)
				confirmed(t, b, k, map[string]int{"orders": 3, "bills": 1})
				if n := b.lines.count("refusal=" + refusal.StubLost.ID); n != 1 {
					t.Errorf("%d lines about it", n)
				}
				if s := k.Status(); s.Totals.Repaired != 1 {
					t.Errorf("status %+v", s)
				}
			})
		})
	}
}

// A stub that was deleted and may not be made again is none: the offsets are gone, and
// new ones have to be kept elsewhere.
func TestADeletedStubThatHomeRefuses(t *testing.T) {
	withBed(t, func(t *testing.T, b *bed) {
		k := b.keeper(Settings{})
		k.Want([]Want{b.want("orders", 3)})
		settle(t, k, time.Second)
		b.answerCreate(func(*kmsg.CreateTopicsRequestTopic) (int16, string) { return kerr.TopicAuthorizationFailed.Code, "" })
		b.delete(t, "orders")
		until(t, k, 10*time.Second, "refused", func(s *Snapshot) bool { return s.Refused(nameOf("orders")) != nil })
		settle(t, k, time.Second)
		if st, ok := k.Current().Stub(nameOf("orders")); ok {
			t.Errorf("still used: %+v", st)
		}
	})
}

// A stub that was deleted and made again by somebody else, perhaps smaller, is
// extended; the count that was shown stays.
func TestAStubThatWasReplacedBySmallerOne(t *testing.T) {
	withBed(t, func(t *testing.T, b *bed) {
		k := b.keeper(Settings{})
		k.Want([]Want{b.want("orders", 3)})
		settle(t, k, time.Second)
		b.delete(t, "orders")
		if err := b.home.CreateTopic(nameOf("orders"), 1, nil); err != nil {
			t.Fatal(err)
		}
		until(t, k, 10*time.Second, "extended again", func(s *Snapshot) bool {
			st, ok := s.Stub(nameOf("orders"))
			if !ok || st.Partitions != 3 {
				t.Errorf("meanwhile the stub is %+v, %t", st, ok)
			}
			info := b.home.TopicInfo(nameOf("orders"))
			return st.ID == info.TopicID && len(b.home.PartitionInfos(nameOf("orders"))) == 3
		})
	})
}

func TestWhatHomeSaysToCreate(t *testing.T) {
	type attempt = func(n int, t *kmsg.CreateTopicsRequestTopic) (code int16, text string)
	always := func(e *kerr.Error) attempt {
		return func(int, *kmsg.CreateTopicsRequestTopic) (int16, string) { return e.Code, "a reason" }
	}
	busy := func(e *kerr.Error, d time.Duration) attempt {
		var begun time.Time
		return func(n int, _ *kmsg.CreateTopicsRequestTopic) (int16, string) {
			if n == 1 {
				begun = time.Now()
			}
			if time.Since(begun) > d {
				return 0, ""
			}
			return e.Code, ""
		}
	}
	for _, tc := range []struct {
		name    string
		answer  attempt
		refused bool
		within  time.Duration
	}{
		{"no right", always(kerr.TopicAuthorizationFailed), true, time.Second},
		{"no right on the cluster", always(kerr.ClusterAuthorizationFailed), true, time.Second},
		{"a policy", always(kerr.PolicyViolation), true, 5 * time.Second},
		{"a limit of partitions", always(kerr.InvalidPartitions), true, time.Second},
		{"an invalid request", always(kerr.InvalidRequest), true, time.Second},
		{"an invalid name", always(kerr.InvalidTopicException), true, time.Second},
		{"a configuration that home does not take at all", always(kerr.InvalidConfig), true, 5 * time.Second},
		{"a code nobody expects", always(kerr.OffsetOutOfRange), true, time.Second},
		{"an unknown error for long", always(kerr.UnknownServerError), true, 12 * time.Minute},
		{"an unknown error once", func(n int, _ *kmsg.CreateTopicsRequestTopic) (int16, string) {
			if n > 1 {
				return 0, ""
			}
			return kerr.UnknownServerError.Code, ""
		}, false, 2 * time.Second},
		{"too few brokers for long", always(kerr.InvalidReplicationFactor), true, 12 * time.Minute},
		{"too few brokers for some minutes", busy(kerr.InvalidReplicationFactor, 5*time.Minute), false, 6 * time.Minute},
		{"one replica is not enough", func(_ int, t *kmsg.CreateTopicsRequestTopic) (int16, string) {
			if t.ReplicationFactor != -1 {
				return kerr.InvalidReplicationFactor.Code, ""
			}
			return 0, ""
		}, false, time.Second},
		{"a policy about replicas, in words", func(_ int, t *kmsg.CreateTopicsRequestTopic) (int16, string) {
			if t.ReplicationFactor != -1 || len(t.Configs) == 0 {
				return kerr.PolicyViolation.Code, "Topic replication factor must be 3"
			}
			return 0, ""
		}, false, time.Second},
		{"a policy about configuration", func(_ int, t *kmsg.CreateTopicsRequestTopic) (int16, string) {
			if len(t.Configs) > 0 || t.ReplicationFactor != 1 {
				return kerr.PolicyViolation.Code, "no configuration, please"
			}
			return 0, ""
		}, false, time.Second},
		{"a policy that wants both, and says neither", func(_ int, t *kmsg.CreateTopicsRequestTopic) (int16, string) {
			if len(t.Configs) > 0 || t.ReplicationFactor != -1 {
				return kerr.PolicyViolation.Code, "no"
			}
			return 0, ""
		}, false, 2 * time.Second},
		{"a configuration that home does not know", func(_ int, t *kmsg.CreateTopicsRequestTopic) (int16, string) {
			if len(t.Configs) > 0 || t.ReplicationFactor != 1 {
				return kerr.InvalidConfig.Code, ""
			}
			return 0, ""
		}, false, time.Second},
		{"a quota for changes, for an hour", busy(kerr.ThrottlingQuotaExceeded, time.Hour), false, time.Hour + time.Minute},
		{"another controller", func(n int, _ *kmsg.CreateTopicsRequestTopic) (int16, string) {
			if n > 2 {
				return 0, ""
			}
			return kerr.NotController.Code, ""
		}, false, 5 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			withBed(t, func(t *testing.T, b *bed) {
				var n atomic.Int32
				b.answerCreate(func(topic *kmsg.CreateTopicsRequestTopic) (int16, string) {
					return tc.answer(int(n.Add(1)), topic)
				})
				k := b.keeper(Settings{})
				k.Want([]Want{b.want("orders", 3)})
				settle(t, k, tc.within)
				if !tc.refused {
					confirmed(t, b, k, map[string]int{"orders": 3})
					return
				}
				err := k.Current().Refused(nameOf("orders"))
				if !errors.Is(err, refusal.StubRefused) || b.lines.count("refusal="+refusal.StubRefused.ID) != 1 {
					t.Errorf("refused with %v, %d lines", err, b.lines.count("refusal="+refusal.StubRefused.ID))
				}
				if st, ok := k.Current().Stub(nameOf("orders")); ok {
					t.Errorf("refused and there: %+v", st)
				}
				if s := k.Status(); s.Counts[Refused] != 1 || s.Stubs[0].Problem == nil {
					t.Errorf("status %+v", s)
				}
				// It is tried again, but seldom, and without more ado.
				before, snapshot := n.Load(), k.Current()
				time.Sleep(time.Hour)
				if tries := n.Load() - before; tries == 0 || tries > 400 {
					t.Errorf("%d tries within an hour", tries)
				}
				if k.Current() != snapshot {
					t.Error("the snapshot changed although nothing did")
				}
			})
		})
	}
}

// What was refused is made when home allows it: after some minutes, or at once when
// the settings change.
func TestARefusalIsTakenBack(t *testing.T) {
	for name, change := range map[string]func(k *Keeper) time.Duration{
		"by time":         func(*Keeper) time.Duration { return 7 * time.Minute },
		"by new settings": func(k *Keeper) time.Duration { k.Set(Settings{ReplicationFactor: 2}); return time.Second },
	} {
		t.Run(name, func(t *testing.T) {
			withBed(t, func(t *testing.T, b *bed) {
				var allowed atomic.Bool
				b.answerCreate(func(*kmsg.CreateTopicsRequestTopic) (int16, string) {
					if allowed.Load() {
						return 0, ""
					}
					return kerr.TopicAuthorizationFailed.Code, ""
				})
				k := b.keeper(Settings{})
				k.Want([]Want{b.want("orders", 3)})
				settle(t, k, time.Second)
				allowed.Store(true)
				d := change(k)
				until(t, k, d, "confirmed", func(s *Snapshot) bool { _, ok := s.Stub(nameOf("orders")); return ok })
				confirmed(t, b, k, map[string]int{"orders": 3})
			})
		})
	}
}

// A stub that cannot be extended stays in use as it is.
func TestAStubThatHomeDoesNotExtend(t *testing.T) {
	for _, refusedWith := range []*kerr.Error{kerr.TopicAuthorizationFailed, kerr.InvalidPartitions, kerr.PolicyViolation} {
		t.Run(refusedWith.Message, func(t *testing.T) {
			withBed(t, func(t *testing.T, b *bed) {
				k := b.keeper(Settings{})
				k.Want([]Want{b.want("orders", 3)})
				settle(t, k, time.Second)
				refused := b.home.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreatePartitions}, Err: refusedWith, Count: -1})
				k.Want([]Want{b.want("orders", 5)})
				settle(t, k, 75*time.Second)
				confirmed(t, b, k, map[string]int{"orders": 3})
				s := k.Status()
				if s.Counts[Confirmed] != 1 || !errors.Is(s.Stubs[0].Problem, refusal.StubRefused) || s.Stubs[0].Partitions != 3 || s.Stubs[0].Wanted != 5 {
					t.Errorf("status %+v", s)
				}
				time.Sleep(time.Minute)
				confirmed(t, b, k, map[string]int{"orders": 3})
				refused.Remove()
				until(t, k, 7*time.Minute, "extended", func(s *Snapshot) bool { st, _ := s.Stub(nameOf("orders")); return st.Partitions == 5 })
				if s := k.Status(); s.Stubs[0].Problem != nil {
					t.Errorf("status %+v", s)
				}
			})
		})
	}
}

// Another node has extended the stub, and the brokers are slow to learn of it: what
// home says to the second node is no refusal.
func TestBrokersThatAreBehind(t *testing.T) {
	for _, text := range []string{"Topic already has 5 partition(s).", "The topic x currently has 6 partition(s); 5 would not be an increase."} {
		t.Run(text, func(t *testing.T) {
			withBed(t, func(t *testing.T, b *bed) {
				k := b.keeper(Settings{})
				k.Want([]Want{b.want("orders", 3)})
				settle(t, k, time.Second)
				var ahead atomic.Bool
				b.home.ControlKey(int16(kmsg.CreatePartitions), func(req kmsg.Request) (kmsg.Response, error, bool) {
					if ahead.Load() {
						return nil, nil, false
					}
					b.home.KeepControl()
					resp := req.ResponseKind().(*kmsg.CreatePartitionsResponse)
					resp.Topics = []kmsg.CreatePartitionsResponseTopic{{Topic: nameOf("orders"), ErrorCode: kerr.InvalidPartitions.Code, ErrorMessage: &text}}
					return resp, nil, true
				})
				k.Want([]Want{b.want("orders", 5)})
				time.Sleep(2 * time.Minute)
				if s := k.Status(); k.Current().Settled() || s.Counts[Pending] != 1 || s.Stubs[0].Problem != nil {
					t.Errorf("status %+v", s)
				}
				ahead.Store(true)
				settle(t, k, 10*time.Second)
				confirmed(t, b, k, map[string]int{"orders": 5})
			})
		})
	}
}

// An answer that is lost, or says that time was up, leaves open what has happened: a
// look tells.
func TestTheOutcomeOfARequestIsUnknown(t *testing.T) {
	for name, inject := range map[string]func(b *bed){
		"time is up, and it is done": func(b *bed) {
			b.home.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics, kmsg.CreatePartitions}, Err: kerr.RequestTimedOut, Count: 4})
		},
		"the broker hangs up": func(b *bed) {
			for _, key := range []kmsg.Key{kmsg.CreateTopics, kmsg.CreatePartitions} {
				b.home.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) { return nil, errors.New("lost"), true })
			}
		},
		"the broker says nothing": func(b *bed) {
			for _, key := range []kmsg.Key{kmsg.CreateTopics, kmsg.CreatePartitions} {
				b.home.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) { return nil, nil, true })
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			withBed(t, func(t *testing.T, b *bed) {
				k := b.keeper(Settings{})
				inject(b)
				k.Want([]Want{b.want("orders", 3)})
				settle(t, k, 30*time.Second)
				k.Want([]Want{b.want("orders", 5)})
				settle(t, k, 30*time.Second)
				confirmed(t, b, k, map[string]int{"orders": 5})
			})
		})
	}
}

// Groups on the topic's own cluster hold offsets that a stub would hide.
func TestNoStubHidesOffsets(t *testing.T) {
	withBed(t, func(t *testing.T, b *bed) {
		b.commitOn(t, b.foreignUp, "acme.readers")
		k := b.keeper(Settings{})
		k.Want([]Want{b.want("orders", 3)})
		settle(t, k, time.Second)
		if err := k.Current().Refused(nameOf("orders")); !errors.Is(err, refusal.StubHeld) {
			t.Errorf("refused with %v", err)
		}
		time.Sleep(time.Hour)
		if b.home.TopicInfo(nameOf("orders")) != nil {
			t.Error("it was made")
		}
		if n := b.lines.count("refusal=" + refusal.StubHeld.ID); n != 1 {
			t.Errorf("%d lines about it", n)
		}
		req := kmsg.NewPtrDeleteGroupsRequest()
		req.Groups = []string{"acme.readers"}
		for _, id := range []int32{0, 1} {
			req.SetVersion(2)
			if _, err := b.foreignUp.Request(t.Context(), id, 0, 0, "test", req); err != nil {
				t.Fatal(err)
			}
		}
		until(t, k, 8*time.Minute, "made", func(s *Snapshot) bool { _, ok := s.Stub(nameOf("orders")); return ok })
	})
}

// Other tenants' groups are none of the virtual cluster's.
func TestGroupsOfOthersDoNotMatter(t *testing.T) {
	withBed(t, func(t *testing.T, b *bed) {
		b.commitOn(t, b.foreignUp, "acme-2.readers")
		b.commitOn(t, b.foreignUp, "readers")
		k := b.keeper(Settings{})
		k.Want([]Want{b.want("orders", 3)})
		settle(t, k, time.Second)
		confirmed(t, b, k, map[string]int{"orders": 3})
	})
}

// A cluster that cannot be asked about groups holds up its own topics and nothing else.
func TestAClusterThatCannotBeAsked(t *testing.T) {
	for name, trouble := range map[string]func(b *bed, bad func() bool){
		"a broker of it is silent": func(b *bed, bad func() bool) { mute(b.foreign, 1, kmsg.ListGroups, bad) },
		"a broker of it loads its groups": func(b *bed, bad func() bool) {
			b.foreign.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListGroups}, Nodes: []int32{1}, TopLevel: true, Err: kerr.CoordinatorLoadInProgress, Count: -1, When: func(kmsg.Request) bool { return bad() }})
		},
		"it has not been reached": nil,
	} {
		t.Run(name, func(t *testing.T) {
			withBed(t, func(t *testing.T, b *bed) {
				var bad atomic.Bool
				bad.Store(true)
				if trouble != nil {
					trouble(b, bad.Load)
				}
				other := b.upstream("east", b.cluster([]int{39092}))
				k := b.keeper(Settings{})
				orders, bills := b.want("orders", 3), b.want("bills", 1)
				bills.Foreign = other
				if trouble == nil {
					orders.Foreign = nil
				}
				k.Want([]Want{orders, bills})
				settle(t, k, 10*time.Second)
				confirmed(t, b, k, map[string]int{"bills": 1})
				time.Sleep(time.Minute)
				settle(t, k, 10*time.Second)
				if _, ok := k.Current().Stub(nameOf("orders")); ok || k.Current().Refused(nameOf("orders")) != nil || b.home.TopicInfo(nameOf("orders")) != nil {
					t.Error("decided without asking")
				}
				if s := k.Status(); s.Counts[Waiting] != 1 || s.Stubs[1].Problem == nil {
					t.Errorf("status %+v", s)
				}
				bad.Store(false)
				orders.Foreign = b.foreignUp
				k.Want([]Want{orders, bills})
				until(t, k, 15*time.Second, "made", func(s *Snapshot) bool { _, ok := s.Stub(nameOf("orders")); return ok })
			})
		})
	}
}

// A stub whose topic's partitions are not known is used, and not made.
func TestAStubOfAnUnknownTopicIsOnlyUsed(t *testing.T) {
	withBed(t, func(t *testing.T, b *bed) {
		if err := b.home.CreateTopic(nameOf("orders"), 3, nil); err != nil {
			t.Fatal(err)
		}
		k := b.keeper(Settings{})
		k.Want([]Want{b.want("orders", 0), b.want("bills", 0)})
		settle(t, k, time.Second)
		confirmed(t, b, k, map[string]int{"orders": 3})
		time.Sleep(time.Hour)
		settle(t, k, time.Second)
		if b.home.TopicInfo(nameOf("bills")) != nil {
			t.Error("a stub was made with partitions that nobody knows")
		}
	})
}

// While home is down, what is known stays; what has to be done is done when it is back.
func TestHomeIsDown(t *testing.T) {
	withBed(t, func(t *testing.T, b *bed) {
		k := b.keeper(Settings{})
		k.Want([]Want{b.want("orders", 3)})
		settle(t, k, time.Second)
		before, _ := k.Current().Stub(nameOf("orders"))
		var down atomic.Bool
		down.Store(true)
		b.home.Control(func(kmsg.Request) (kmsg.Response, error, bool) {
			if !down.Load() {
				return nil, nil, false
			}
			b.home.KeepControl()
			return nil, errors.New("down"), true
		})
		time.Sleep(time.Minute)
		k.Want([]Want{b.want("orders", 5), b.want("bills", 1)})
		settle(t, k, 10*time.Second)
		if st, ok := k.Current().Stub(nameOf("orders")); !ok || st != before {
			t.Errorf("while home is down: %+v, %t", st, ok)
		}
		if s := k.Status(); !errors.Is(s.Home, refusal.StubHomeUnreachable) {
			t.Errorf("status %+v", s)
		}
		time.Sleep(10 * time.Minute)
		down.Store(false)
		until(t, k, 20*time.Second, "all there", func(s *Snapshot) bool {
			o, _ := s.Stub(nameOf("orders"))
			_, ok := s.Stub(nameOf("bills"))
			return ok && o.Partitions == 5
		})
		settle(t, k, time.Second)
		confirmed(t, b, k, map[string]int{"orders": 5, "bills": 1})
		if s := k.Status(); s.Home != nil {
			t.Errorf("status %+v", s)
		}
		if n := b.lines.count("refusal=" + refusal.StubHomeUnreachable.ID); n != 1 {
			t.Errorf("%d lines about it", n)
		}
	})
}

func TestStubsAreSwitchedOff(t *testing.T) {
	withBed(t, func(t *testing.T, b *bed) {
		requests := count(b.home, kmsg.CreateTopics)
		k := b.keeper(Settings{Disabled: true})
		k.Want([]Want{b.want("orders", 3)})
		settle(t, k, time.Second)
		if err := k.Current().Refused(nameOf("orders")); !errors.Is(err, refusal.StubsOff) {
			t.Errorf("refused with %v", err)
		}
		time.Sleep(time.Hour)
		if n := requests.total(); n != 0 {
			t.Errorf("%d requests", n)
		}
		k.Set(Settings{})
		settle(t, k, time.Second)
		confirmed(t, b, k, map[string]int{"orders": 3})
		k.Set(Settings{Disabled: true, KeepFor: time.Minute})
		k.Keep(nil)
		settle(t, k, time.Second)
		if _, ok := k.Current().Stub(nameOf("orders")); ok || k.Current().Refused(nameOf("orders")) == nil {
			t.Error("used although stubs are switched off")
		}
		time.Sleep(time.Hour)
		if b.home.TopicInfo(nameOf("orders")) == nil {
			t.Error("deleted because stubs are switched off")
		}
	})
}

// The grace of a stub begins when its alias is gone, and ends with the stub.
func TestStubsOfAliasesThatAreGoneAreDeleted(t *testing.T) {
	withBed(t, func(t *testing.T, b *bed) {
		for _, name := range []string{"acme.__tg.stub.by-hand", "acme.__tg.other", "acme.orders", "acme-2.__tg.stub.orders.AAAAAAAAAAAAAAAAAAAAAA"} {
			if err := b.home.CreateTopic(name, 1, nil); err != nil {
				t.Fatal(err)
			}
		}
		k := b.keeper(Settings{KeepFor: time.Hour})
		exists := func(alias string, want bool) {
			t.Helper()
			if got := b.home.TopicInfo(nameOf(alias)) != nil; got != want {
				t.Errorf("stub of %s: %t, want %t; %+v", alias, got, want, k.Status())
			}
		}
		orders, bills := b.want("orders", 3), b.want("bills", 1)
		k.Want([]Want{orders, bills})
		settle(t, k, time.Second)
		k.Want([]Want{orders})
		time.Sleep(2 * time.Hour)
		exists("bills", true) // nobody has said which aliases there are
		k.Keep([]string{"orders", "bills"})
		time.Sleep(2 * time.Hour)
		exists("bills", true)
		k.Keep([]string{"orders"})
		time.Sleep(50 * time.Minute)
		exists("bills", true)
		if s := k.Status(); len(s.Orphans) != 1 || s.Orphans[0].Name != nameOf("bills") {
			t.Errorf("status %+v", s)
		}
		// Wanted again in between, it has its whole time again.
		k.Want([]Want{orders, bills})
		settle(t, k, time.Second)
		k.Want([]Want{orders})
		settle(t, k, time.Second)
		begun := time.Now()
		time.Sleep(time.Hour - time.Minute)
		exists("bills", true)
		time.Sleep(2 * time.Minute)
		exists("bills", false)
		exists("orders", true)
		if s := k.Status(); s.Totals.Deleted != 1 {
			t.Errorf("%v after the alias is gone: %+v", time.Since(begun), s)
		}
		time.Sleep(time.Hour)
		if s := k.Status(); len(s.Orphans) != 0 {
			t.Errorf("status %+v", s)
		}
		for _, name := range []string{"acme.__tg.stub.by-hand", "acme.__tg.other", "acme.orders", "acme-2.__tg.stub.orders.AAAAAAAAAAAAAAAAAAAAAA"} {
			if b.home.TopicInfo(name) == nil {
				t.Errorf("%s is gone", name)
			}
		}
	})
}

// An alias that stands for another topic has another stub. The old one goes when its
// time is up, if the new one is there.
func TestStubsOfFormerTopicsAreDeleted(t *testing.T) {
	withBed(t, func(t *testing.T, b *bed) {
		k := b.keeper(Settings{KeepFor: time.Hour})
		k.Keep([]string{"orders"})
		old := b.want("orders", 3)
		k.Want([]Want{old})
		settle(t, k, time.Second)
		now := old
		now.Name = Name(prefix, "orders", [16]byte{9})
		var allowed atomic.Bool
		b.answerCreate(func(*kmsg.CreateTopicsRequestTopic) (int16, string) {
			if allowed.Load() {
				return 0, ""
			}
			return kerr.TopicAuthorizationFailed.Code, ""
		})
		k.Want([]Want{now})
		time.Sleep(3 * time.Hour)
		if b.home.TopicInfo(old.Name) == nil {
			t.Error("deleted although nothing stands in its place")
		}
		allowed.Store(true)
		until(t, k, 10*time.Minute, "made", func(s *Snapshot) bool { _, ok := s.Stub(now.Name); return ok })
		time.Sleep(59 * time.Minute)
		if b.home.TopicInfo(old.Name) == nil {
			t.Error("deleted too early")
		}
		time.Sleep(2 * time.Minute)
		if b.home.TopicInfo(old.Name) != nil || b.home.TopicInfo(now.Name) == nil {
			t.Errorf("not deleted: %+v", k.Status())
		}
	})
}

// A stub that home does not let go is reported, and tried again.
func TestAStubThatCannotBeDeleted(t *testing.T) {
	withBed(t, func(t *testing.T, b *bed) {
		k := b.keeper(Settings{KeepFor: time.Hour})
		k.Keep(nil)
		k.Want([]Want{b.want("orders", 3)})
		settle(t, k, time.Second)
		refused := b.home.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DeleteTopics}, Err: kerr.TopicAuthorizationFailed, Count: -1})
		k.Want(nil)
		time.Sleep(3 * time.Hour)
		if s := k.Status(); len(s.Orphans) != 1 || !errors.Is(s.Orphans[0].Problem, refusal.StubNotDeleted) {
			t.Errorf("status %+v", s)
		}
		if n := b.lines.count("refusal=" + refusal.StubNotDeleted.ID); n != 1 {
			t.Errorf("%d lines about it", n)
		}
		refused.Remove()
		time.Sleep(7 * time.Minute)
		if b.home.TopicInfo(nameOf("orders")) != nil {
			t.Error("still there")
		}
	})
}

// A keeper that is closed in the middle of something leaves nothing behind, and a
// caller who waits is not left waiting.
func TestClosedWhileHomeIsAsked(t *testing.T) {
	for _, key := range []kmsg.Key{kmsg.Metadata, kmsg.CreateTopics, kmsg.CreatePartitions, kmsg.DeleteTopics} {
		t.Run(key.Name(), func(t *testing.T) {
			withBed(t, func(t *testing.T, b *bed) {
				k := b.keeper(Settings{KeepFor: time.Minute})
				k.Keep(nil)
				k.Want([]Want{b.want("orders", 3), b.want("old", 1)})
				settle(t, k, time.Second)
				var asked atomic.Bool
				b.home.ControlKey(int16(key), func(req kmsg.Request) (kmsg.Response, error, bool) {
					if m, ok := req.(*kmsg.MetadataRequest); ok && len(m.Topics) == 0 {
						return nil, nil, false
					}
					b.home.KeepControl()
					asked.Store(true)
					return nil, nil, true
				})
				k.Want([]Want{b.want("orders", 5), b.want("bills", 1)})
				for begun := time.Now(); !asked.Load(); time.Sleep(10 * time.Millisecond) {
					if time.Since(begun) > 2*time.Minute {
						t.Fatal("never asked")
					}
				}
				begun := time.Now()
				k.Close()
				if d := time.Since(begun); d != 0 {
					t.Errorf("closed after %v", d)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if err := k.Wait(ctx); key == kmsg.CreateTopics && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("wait: %v", err)
				}
				synctest.Wait()
			})
		})
	}
}

// Random trouble for a while, and then none: everything is as wanted in the end, and
// no stub that was shown was ever taken back or became smaller.
func TestStubsOutliveTrouble(t *testing.T) {
	withBed(t, func(t *testing.T, b *bed) {
		k := b.keeper(Settings{KeepFor: time.Hour})
		sizes := make(map[string]int)
		var wants []Want
		var all []string
		shown := make(map[string]int)
		check := func(s *Snapshot) {
			for name, n := range shown {
				if st, ok := s.Stub(name); !ok || st.Partitions < n {
					t.Errorf("%s had %d partitions, now %+v", name, n, st)
				}
			}
			for _, alias := range all {
				if st, ok := s.Stub(nameOf(alias)); ok {
					shown[st.Name] = st.Partitions
				}
			}
		}
		for round := range 40 {
			errs := []*kerr.Error{kerr.NotController, kerr.RequestTimedOut, kerr.ThrottlingQuotaExceeded, kerr.UnknownServerError}
			b.home.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics, kmsg.CreatePartitions}, Err: errs[round%4], Count: round % 3},
				kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Nodes: []int32{int32(round % 3)}, Err: kerr.UnknownTopicOrPartition, Count: round % 5})
			if round%7 == 3 {
				if err := b.home.DeleteTopic(nameOf(all[round%len(all)])); err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) {
					t.Fatal(err)
				}
			}
			if round%5 == 1 {
				n := 0
				b.home.ControlKey(int16(kmsg.Metadata), func(kmsg.Request) (kmsg.Response, error, bool) {
					b.home.KeepControl()
					switch n++; {
					case n < 4:
						return nil, errors.New("lost"), true
					case n == 4:
						return nil, nil, true
					}
					return nil, nil, false
				})
			}
			alias := fmt.Sprint("topic-", round)
			all = append(all, alias)
			sizes[alias] = 1
			sizes[all[round/2]] += 2
			wants = wants[:0]
			for a, n := range maps.All(sizes) {
				wants = append(wants, b.want(a, n))
			}
			k.Want(wants)
			for range 20 {
				time.Sleep(100 * time.Millisecond)
				check(k.Current())
			}
		}
		time.Sleep(time.Minute)
		settle(t, k, time.Minute)
		check(k.Current())
		confirmed(t, b, k, sizes)
	})
}
