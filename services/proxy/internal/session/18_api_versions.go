package session

import (
	"context"
	"maps"
	"regexp"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
)

// ApiVersions (PROTOCOL.md §A2): one range per key for the whole virtual cluster,
// the same before and after authentication.

// software is what KIP-511 allows as client software name and version.
var software = regexp.MustCompile(`^[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?$`)

func apiVersions(s *Session, _ context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.ApiVersionsRequest)
	resp := req.ResponseKind().(*kmsg.ApiVersionsResponse)
	if req.Version >= 3 && (!software.MatchString(req.ClientSoftwareName) || !software.MatchString(req.ClientSoftwareVersion)) {
		resp.ErrorCode = s.refused(refusal.ClientSoftware, "software", quote(req.ClientSoftwareName), "software_version", quote(req.ClientSoftwareVersion))
		return resp, nil
	}
	s.software = req.ClientSoftwareName
	o := s.offered()
	for _, e := range table {
		low, high, ok := e.versions(o)
		if !ok {
			continue
		}
		k := kmsg.NewApiVersionsResponseApiKey()
		k.ApiKey, k.MinVersion, k.MaxVersion = e.key, low, high
		resp.ApiKeys = append(resp.ApiKeys, k)
	}
	if o == nil {
		return resp, nil
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
