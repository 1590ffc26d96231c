//go:build windows

package servers

import (
	"errors"
	"os"
	"syscall"
)

func attributesOf(bool) (*syscall.SysProcAttr, error) { return nil, nil }

func chownToServerUser(string) error { return nil }

func killGroup(process *os.Process) error { return process.Kill() }
func terminate(process *os.Process) error { return process.Kill() }
func interrupt(process *os.Process) error { return process.Kill() }
func resume(*os.Process) error            { return nil }

func pause(*os.Process) error { return errors.ErrUnsupported }
