package session

import (
	"context"
	"maps"
	"regexp"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/view"
)

// ApiVersions (PROTOCOL.md §A2): one range per key for the whole virtual cluster,
// the same before and after authentication.

// software is what KIP-511 allows as client software name and version.
var software = regexp.MustCompile(`^[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?$`)

func apiVersions(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.ApiVersionsRequest)
	resp := req.ResponseKind().(*kmsg.ApiVersionsResponse)
	if req.Version >= 3 && (!software.MatchString(req.ClientSoftwareName) || !software.MatchString(req.ClientSoftwareVersion)) {
		resp.ErrorCode = s.refused(refusal.ClientSoftware, "software", quote(req.ClientSoftwareName), "software_version", quote(req.ClientSoftwareVersion))
		return resp, nil
	}
	if s.software = req.ClientSoftwareName; s.software != "" {
		s.says(func(a *about) {
			a.software, a.softwareVersion = clip(req.ClientSoftwareName), clip(req.ClientSoftwareVersion)
		})
	}
	o := s.awaitOffer(ctx)
	if o == nil {
		s.reset()
		return nil, refusal.HomeUnknown
	}
	for _, e := range table {
		low, high, ok := e.versions(o)
		if !ok {
			continue
		}
		k := kmsg.NewApiVersionsResponseApiKey()
		k.ApiKey, k.MinVersion, k.MaxVersion = e.key, low, high
		resp.ApiKeys = append(resp.ApiKeys, k)
	}
	resp.FinalizedFeaturesEpoch = o.Epoch
	for _, name := range slices.Sorted(maps.Keys(o.Finalized)) {
		level := o.Finalized[name]
		f := kmsg.NewApiVersionsResponseFinalizedFeature()
		f.Name, f.MinVersionLevel, f.MaxVersionLevel = name, level, level
		resp.FinalizedFeatures = append(resp.FinalizedFeatures, f)
		if r := o.Supported[name]; r.Min > 0 || req.Version >= 4 {
			sf := kmsg.NewApiVersionsResponseSupportedFeature()
			sf.Name, sf.MinVersion, sf.MaxVersion = name, r.Min, r.Max
			resp.SupportedFeatures = append(resp.SupportedFeatures, sf)
		}
	}
	return resp, nil
}

// homeWait is how long a client waits for home's brokers to say what they can do;
// librdkafka waits ten seconds.
const homeWait = 5 * time.Second

// awaitOffer is offered, when home was reached; nil: it was not in good time. What is
// offered without knowing it would be too little, and clients take that for final:
// Java fails its records, and joins no KIP-848 group.
func (s *Session) awaitOffer(ctx context.Context) *view.Offer {
	if o := s.offered(); o != nil {
		return o
	}
	ctx, cancel := context.WithTimeout(ctx, homeWait)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for s.offered() == nil {
		select {
		case <-tick.C:
		case <-s.quit:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
	return s.offer
}

// reset ends the client's connection as one to a machine that is down ends, without
// a word of TLS: clients then try again, all of them.
func (s *Session) reset() {
	if tcp, ok := s.client.Sock.Conn.(interface{ SetLinger(seconds int) error }); ok {
		_ = tcp.SetLinger(0) // it is closed all the same
	}
	s.client.Sock.Conn.Close()
}

// apiVersionsUnsupported answers a version nobody knows in the layout of v0, with
// nothing but our range (KIP-511); the client tries again with that.
func (s *Session) apiVersionsUnsupported(h header) error {
	if err := s.sendUp(); err != nil {
		return err
	}
	s.waitDrained()
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.ErrorCode = s.refused(refusal.APIVersionsVersion, "version", h.version)
	k := kmsg.NewApiVersionsResponseApiKey()
	e := entryOf(keyApiVersions)
	k.ApiKey, k.MinVersion, k.MaxVersion = e.key, e.min, e.max
	resp.ApiKeys = append(resp.ApiKeys, k)
	h.version = 0
	return s.answer(&h, resp)
}
