//go:build windows

package servers

import (
	"errors"
	"os"
	"syscall"
)

func attributes() *syscall.SysProcAttr { return nil }

func killGroup(process *os.Process) error { return process.Kill() }
func terminate(process *os.Process) error { return process.Kill() }
func resume(*os.Process) error            { return nil }

func pause(*os.Process) error { return errors.ErrUnsupported }
