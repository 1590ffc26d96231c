package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// sandboxVariable names the temporary folder of the process in the namespaces.
const sandboxVariable = "BARID_MATRIX_SANDBOX"

func inSandbox() bool { return os.Getenv(sandboxVariable) != "" }

// requirements are what the machine lacks.
func requirements() (missing []string) {
	if os.Geteuid() != 0 {
		missing = append(missing, "root's rights")
	}
	for _, program := range []string{"apt-get", "dpkg-deb", "dpkg-query", "tar", "chroot", "unshare"} {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, program)
		}
	}
	return missing
}

// runInSandbox runs this program again, in new namespaces for mounts and process
// IDs. It is the first process there: when it ends, the kernel ends all others. It
// ends with this process, too.
func runInSandbox(ctx context.Context) error {
	runtime.LockOSThread() // the kernel ties the new process to the thread
	defer runtime.UnlockOSThread()
	program, err := os.Executable()
	if err != nil {
		return err
	}
	// Servers that run as another user must reach it.
	temporary, err := os.MkdirTemp("", "barid-matrix-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temporary) //nolint:errcheck // a temporary folder
	if err := os.Chmod(temporary, 0o755); err != nil {
		return err
	}
	inner := exec.CommandContext(ctx, program, os.Args[1:]...)
	inner.Env = append(os.Environ(), sandboxVariable+"="+temporary)
	inner.Stdout, inner.Stderr = os.Stdout, os.Stderr
	inner.Cancel = func() error { return inner.Process.Signal(syscall.SIGTERM) }
	inner.WaitDelay = 20 * time.Second
	inner.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	err = inner.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return errTold
	}
	if errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("%w: it gives no right to make namespaces: %w", errSandbox, err)
	}
	return err
}

// enterSandbox is to be called once in the sandbox. It returns the temporary folder
// of this run.
func enterSandbox() (temporary string, err error) {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return "", fmt.Errorf("keep mounts apart: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return "", fmt.Errorf("mount /proc: %w", err)
	}
	return os.Getenv(sandboxVariable), nil
}

// mountRoot mounts a release at the folder root, with all that servers need there.
// The servers' data has the same path in it and outside.
func mountRoot(unpacked, root, data string) error {
	for _, mount := range []struct {
		source, target, kind string
		flags                uintptr
	}{
		// All users can reach this path, and perhaps not the one in the cache.
		{unpacked, root, "", syscall.MS_BIND},
		{"proc", filepath.Join(root, "proc"), "proc", 0},
		{"/dev", filepath.Join(root, "dev"), "", syscall.MS_BIND | syscall.MS_REC},
		// A file system of its own, to make the next folder in.
		{"tmpfs", filepath.Join(root, strings.Split(data, "/")[1]), "tmpfs", 0},
		{data, filepath.Join(root, data), "", syscall.MS_BIND},
	} {
		if err := os.MkdirAll(mount.target, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount(mount.source, mount.target, mount.kind, mount.flags, ""); err != nil {
			return fmt.Errorf("mount %s: %w", mount.target, err)
		}
	}
	return nil
}
