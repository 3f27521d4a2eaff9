package session

import (
	"context"
	"regexp"

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
	for _, e := range table {
		low, high, ok := e.versions(s.vc)
		if !ok {
			continue
		}
		k := kmsg.NewApiVersionsResponseApiKey()
		k.ApiKey, k.MinVersion, k.MaxVersion = e.key, low, high
		resp.ApiKeys = append(resp.ApiKeys, k)
	}
	upstream := s.vc.Home.Versions()
	if upstream == nil {
		return resp, nil
	}
	// transaction.version 2 needs Produce 12, TxnOffsetCommit 5 and EndTxn 5
	// together (§C4); they are in the table whenever the brokers have them.
	resp.FinalizedFeaturesEpoch = 1
	for _, name := range []string{"group.version", "metadata.version", "share.version", "transaction.version"} {
		level := upstream.Finalized[name]
		if level <= 0 || name == "share.version" && !sharing(s.vc) {
			continue
		}
		f := kmsg.NewApiVersionsResponseFinalizedFeature()
		f.Name, f.MinVersionLevel, f.MaxVersionLevel = name, level, level
		resp.FinalizedFeatures = append(resp.FinalizedFeatures, f)
		if r := upstream.Supported[name]; r.Min > 0 || req.Version >= 4 {
			sf := kmsg.NewApiVersionsResponseSupportedFeature()
			sf.Name, sf.MinVersion, sf.MaxVersion = name, r.Min, level
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
