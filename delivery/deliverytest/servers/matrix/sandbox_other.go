//go:build !linux

package main

import (
	"context"
	"errors"
	"runtime"
)

func inSandbox() bool { return false }

func requirements() []string { return []string{"Linux (this is " + runtime.GOOS + ")"} }

func runInSandbox(context.Context) error          { return errors.ErrUnsupported }
func enterSandbox() (temporary string, err error) { return "", errors.ErrUnsupported }
func mountRoot(unpacked, root, data string) error { return errors.ErrUnsupported }
