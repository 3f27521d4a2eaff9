package load

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tollgate.internal/e2e/internal/drivers"
)

// A Crew are clients at work in one virtual cluster, each of which is to live through
// whatever breaks: franz-go writes and reads numbers, and others may do more.
type Crew struct {
	Producer *Producer
	Consumer *Consumer
	// Mover moves the numbers on to the physical topic Moved, if there is one.
	Mover *Transformer
	Moved string
	// Others are clients besides franz-go, on topics of their own.
	Others []Other

	brokers []kgo.Opt // that reach the cluster itself
	admin   *kadm.Client
	topic   string // physical, of the numbers
	clients []*kgo.Client
}

// An Other is a client that is not franz-go.
type Other struct {
	Name   string
	Topic  string // physical
	Writer *Verifiable
	Reader *Verifiable // optional
}

// NewCrew starts clients of a target that write the numbers to a topic, and read them in
// a group, from the beginning. The brokers are reached directly to compare what they
// hold; to them the topic is the physical one. The clients end with Close at the latest.
func NewCrew(target drivers.Target, topic, group string, partitions int, brokers []kgo.Opt, physical string) (*Crew, error) {
	c := &Crew{brokers: brokers, topic: physical}
	base, err := target.KgoOpts()
	if err != nil {
		return nil, err
	}
	for _, opts := range [][]kgo.Opt{
		brokers,
		append(ProducerOpts(), base...),
		append(append(ConsumerOpts(), kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic)), base...),
	} {
		client, err := kgo.NewClient(opts...)
		if err != nil {
			c.Close()
			return nil, err
		}
		c.clients = append(c.clients, client)
	}
	c.admin = kadm.NewClient(c.clients[0])
	c.Producer, c.Consumer = Produce(c.clients[1], topic, partitions), Consume(c.clients[2])
	return c, nil
}

// Close closes the clients. What was not stopped by then has ended badly.
func (c *Crew) Close() {
	for _, client := range c.clients {
		client.CloseAllowingRebalance()
	}
}

// Reach has the crew reach the brokers in another way from now on: they have moved.
func (c *Crew) Reach(brokers []kgo.Opt) error {
	client, err := kgo.NewClient(brokers...)
	if err != nil {
		return err
	}
	c.clients = append(c.clients, client)
	c.brokers, c.admin = brokers, kadm.NewClient(client)
	return nil
}

// GoOn waits until every client has done more work.
func (c *Crew) GoOn(ctx context.Context) error {
	if err := c.Producer.WaitMore(ctx, 20); err != nil {
		return fmt.Errorf("producer: %w", err)
	}
	for _, o := range c.Others {
		if err := o.Writer.WaitMore(ctx, 50); err != nil {
			return fmt.Errorf("%s's producer: %w", o.Name, err)
		}
	}
	if err := c.Consumer.WaitFor(ctx, c.Producer.Counts()); err != nil {
		return fmt.Errorf("consumer: %w", err)
	}
	if c.Mover != nil {
		if err := c.Mover.WaitFor(ctx, c.Producer.Counts()); err != nil {
			return fmt.Errorf("transactions: %w", err)
		}
	}
	for _, o := range c.Others {
		if o.Reader == nil {
			continue
		}
		var listed kadm.ListedOffsets
		err := Wait(ctx, func() (err error) { // the client may not have heard of what happened to a broker
			if listed, err = c.admin.ListEndOffsets(ctx, o.Topic); err == nil {
				err = listed.Error()
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("what %s wrote: %w", o.Name, err)
		}
		ends := make(map[int32]int64)
		listed.Each(func(l kadm.ListedOffset) { ends[l.Partition] = l.Offset })
		if err := o.Reader.WaitFor(ctx, ends); err != nil {
			return fmt.Errorf("%s's consumer: %w", o.Name, err)
		}
	}
	return nil
}

// End stops the clients, and reports what went wrong for any of them, and how what the
// brokers hold differs from what was acknowledged. It returns how many of the numbers
// were, by partition.
func (c *Crew) End(ctx context.Context) (acked []int64, err error) {
	var errs []error
	note := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	acked, err = c.Producer.Stop(ctx)
	note("producer", err)
	note("what it wrote", Check(ctx, c.brokers, c.topic, acked))
	if c.Mover != nil {
		note("transactions", c.Mover.WaitFor(ctx, acked))
		note("transactions", c.Mover.Stop())
		note("moved in transactions", Check(ctx, append(c.brokers[:len(c.brokers):len(c.brokers)], kgo.FetchIsolationLevel(kgo.ReadCommitted())), c.Moved, acked))
	}
	note("consumer", c.Consumer.WaitFor(ctx, acked))
	note("consumer", c.Consumer.Stop())
	for _, o := range c.Others {
		note(o.Name+"'s producer", o.Writer.Stop(ctx))
		ends, err := o.Writer.Check(ctx, c.brokers, o.Topic)
		note("what "+o.Name+" wrote", err)
		if o.Reader != nil {
			note(o.Name+"'s consumer", o.Reader.WaitFor(ctx, ends))
			note(o.Name+"'s consumer", o.Reader.Stop(ctx))
		}
	}
	return acked, errors.Join(errs...)
}

// Disconnected is the first time that one of the others said that it had no connection
// left, which may be so when something is killed.
func (c *Crew) Disconnected() error {
	for _, o := range c.Others {
		for _, v := range []*Verifiable{o.Writer, o.Reader} {
			if v == nil {
				continue
			}
			if err := v.Disconnected(); err != nil {
				return fmt.Errorf("%s: %w", o.Name, err)
			}
		}
	}
	return nil
}
