package servers

import "syscall"

// attributes ties the server's life to ours: the kernel kills it when we die,
// however that happens (prctl(2), PR_SET_PDEATHSIG).
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
