module tollgate.internal/services/proxy

go 1.26.0

require tollgate.internal/pkg v0.0.0

replace tollgate.internal/pkg => ../../pkg
