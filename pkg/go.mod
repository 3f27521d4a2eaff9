module tollgate.internal/pkg

go 1.26.0

require (
	github.com/twmb/franz-go/pkg/kmsg v1.15.0
	go.yaml.in/yaml/v3 v3.0.6
)
