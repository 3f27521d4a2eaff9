module tollgate.internal/cmd

go 1.26.0

require (
	tollgate.internal/pkg v0.0.0
	tollgate.internal/services/proxy v0.0.0
)

replace (
	tollgate.internal/pkg => ../pkg
	tollgate.internal/services/proxy => ../services/proxy
)
