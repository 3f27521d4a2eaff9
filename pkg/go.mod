module tollgate.internal/pkg

go 1.26.0
