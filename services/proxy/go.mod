module tollgate.internal/services/proxy

go 1.26.0

require (
	github.com/go-jose/go-jose/v4 v4.1.8
	github.com/twmb/franz-go v1.22.2
	github.com/twmb/franz-go/pkg/kmsg v1.15.0
	golang.org/x/crypto v0.58.0
	tollgate.internal/pkg v0.0.0
)

require (
	github.com/prometheus/client_golang v1.25.0 // indirect
	go.yaml.in/yaml/v3 v3.0.6 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace tollgate.internal/pkg => ../../pkg
