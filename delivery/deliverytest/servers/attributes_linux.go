package servers

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// attributes ties the server to this process: the kernel kills it when this
// process ends, however that happens (prctl(2), PR_SET_PDEATHSIG).
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// children are the processes that pid has started, as proc(5) lists them.
func children(pid int) []int {
	list, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	var pids []int
	for _, word := range strings.Fields(string(list)) {
		if child, err := strconv.Atoi(word); err == nil {
			pids = append(pids, child)
		}
	}
	return pids
}

// alive returns whether the process still runs. A process that has ended stays
// a zombie until its parent waits for it.
func alive(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	// The name before the state is in parentheses, and may contain parentheses.
	_, state, _ := strings.Cut(string(status[strings.LastIndexByte(string(status), ')')+1:]), " ")
	return !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X")
}
