package control

const childVariable = "TOLLGATE_TEST_CHILD"

func child() int { return 1 }
