package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// errMirror says that the mirror could not be reached, or has not all packages.
var errMirror = errors.New("the Debian mirror did not give the packages")

// keyring holds the keys that Debian signs its releases with.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// release is a release of Debian, unpacked into a folder. Nothing in it is
// configured: it is just enough to run a server's program in it.
type release struct {
	name     string
	unpacked string            // its folder in the cache
	root     string            // where it is mounted
	packages map[string]string // versions by name
}

// besides are the packages that the servers' start scripts need.
var besides = []string{"base-files", "coreutils", "dash", "sed", "grep", "gawk", "libc-bin", "util-linux"}

// provision unpacks the packages and what they depend on, unless the folder of these
// versions is there already. Without the mirror it takes the folder that is there,
// whatever its versions.
func provision(ctx context.Context, name, cache string, packages []string) (*release, error) {
	r := &release{name: name}
	a := apt{folder: filepath.Join(cache, name+".apt")}
	wanted := slices.Concat(packages, besides)
	err := a.prepare(name)
	if err == nil {
		_, err = a.run(ctx, "update")
	}
	if err == nil {
		err = r.resolve(ctx, a, wanted)
	}
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, errMirror):
		return r.recall(cache, err)
	case err != nil:
		return nil, err
	}
	hash := sha256.Sum256([]byte(strings.Join(r.list(), "\n")))
	r.unpacked = filepath.Join(cache, name+"-"+hex.EncodeToString(hash[:6]))
	if _, err := os.Stat(r.unpacked); err == nil {
		return r, nil
	}
	if _, err := a.run(ctx, slices.Concat([]string{"install", "-y", "--download-only"}, wanted)...); err != nil {
		return r.recall(cache, err)
	}
	return r, r.unpack(ctx, a)
}

// list has a line for each package: its name and version.
func (r *release) list() []string {
	lines := make([]string, 0, len(r.packages))
	for name, version := range r.packages {
		lines = append(lines, name+" "+version)
	}
	slices.Sort(lines)
	return lines
}

// resolve finds out which versions would be installed.
func (r *release) resolve(ctx context.Context, a apt, packages []string) error {
	out, err := a.run(ctx, slices.Concat([]string{"install", "--simulate"}, packages)...)
	if err != nil {
		return err
	}
	r.packages = map[string]string{}
	for _, match := range regexp.MustCompile(`(?m)^Inst (\S+) \((\S+) `).FindAllStringSubmatch(out, -1) {
		r.packages[match[1]] = match[2]
	}
	return nil
}

// packageList is the file in a root that lists what was unpacked there.
const packageList = "packages"

// recall finds what an earlier run has unpacked.
func (r *release) recall(cache string, cause error) (*release, error) {
	roots, err := filepath.Glob(filepath.Join(cache, r.name+"-*", packageList))
	if err != nil || len(roots) == 0 {
		return nil, errors.Join(cause, err)
	}
	text, err := os.ReadFile(roots[0])
	if err != nil {
		return nil, err
	}
	fmt.Printf("matrix: %s: %s; taking the packages of an earlier run\n", cause, r.name)
	r.unpacked, r.packages = filepath.Dir(roots[0]), map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, version, _ := strings.Cut(strings.TrimSpace(line), " ")
		r.packages[name] = version
	}
	return r, nil
}

// unpack fills a folder, and gives it its name when it is complete. Folders of other
// versions are removed.
func (r *release) unpack(ctx context.Context, a apt) error {
	fresh := filepath.Join(filepath.Dir(r.unpacked), r.name+".new")
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	for _, folder := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.MkdirAll(filepath.Join(fresh, "usr", folder), 0o755); err != nil {
			return err
		}
		if err := os.Symlink("usr/"+folder, filepath.Join(fresh, folder)); err != nil {
			return err
		}
	}
	archives, err := filepath.Glob(filepath.Join(a.folder, "archives", "*.deb"))
	if err != nil {
		return err
	}
	for _, archive := range archives {
		if err := unpackArchive(ctx, archive, fresh); err != nil {
			return err
		}
	}
	if err := r.complete(fresh); err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(filepath.Dir(r.unpacked), r.name+"-*"))
	for _, folder := range old {
		err = errors.Join(err, os.RemoveAll(folder))
	}
	return errors.Join(err, os.RemoveAll(filepath.Join(a.folder, "archives")), os.Rename(fresh, r.unpacked))
}

func unpackArchive(ctx context.Context, archive, root string) error {
	read := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", archive)
	write := exec.CommandContext(ctx, "tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", root,
		"--exclude=./usr/share/doc", "--exclude=./usr/share/man", "--exclude=./usr/share/locale")
	read.Stderr, write.Stderr = os.Stderr, os.Stderr
	if err := pipe(read, write); err != nil {
		return fmt.Errorf("unpack %s: %w", filepath.Base(archive), err)
	}
	return nil
}

// pipe runs two commands, of which one reads what the other writes.
func pipe(from, to *exec.Cmd) error {
	between, err := from.StdoutPipe()
	if err != nil {
		return err
	}
	to.Stdin = between
	if err := from.Start(); err != nil {
		return err
	}
	return errors.Join(to.Run(), between.Close(), from.Wait())
}

// complete adds what the packages' own scripts would have made.
func (r *release) complete(root string) error {
	if _, err := os.Lstat(filepath.Join(root, "usr/bin/awk")); err != nil {
		if err := os.Symlink("gawk", filepath.Join(root, "usr/bin/awk")); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		return err
	}
	for _, file := range []string{"/etc/hosts", "/etc/nsswitch.conf", "/etc/passwd", "/etc/group"} {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(root, file), text, 0o644); err != nil { //nolint:gosec // all users read it
			return err
		}
	}
	list := strings.Join(r.list(), "\n") + "\n"
	return os.WriteFile(filepath.Join(root, packageList), []byte(list), 0o644) //nolint:gosec // a list of versions
}

// apt runs apt-get with a state of its own, so that it knows no package as installed
// and changes nothing on the machine.
type apt struct{ folder string }

// prepare makes the state's folders, and names the mirror. What an earlier run has
// downloaded and not unpacked may be of other versions, and is removed.
func (a apt) prepare(release string) error {
	if err := os.RemoveAll(filepath.Join(a.folder, "archives")); err != nil {
		return err
	}
	for _, folder := range []string{"lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(a.folder, folder), 0o755); err != nil {
			return err
		}
	}
	mirror, err := machinesMirror()
	if err != nil {
		return err
	}
	source := fmt.Sprintf("deb [signed-by=%s] %s %s main\n", keyring, mirror, release)
	return errors.Join(
		os.WriteFile(filepath.Join(a.folder, "sources.list"), []byte(source), 0o644), //nolint:gosec // no secret
		os.WriteFile(filepath.Join(a.folder, "status"), nil, 0o644))                  //nolint:gosec // no secret
}

// machinesMirror is the Debian mirror that the machine itself uses.
func machinesMirror() (string, error) {
	files := []string{"/etc/apt/sources.list"}
	more, _ := filepath.Glob("/etc/apt/sources.list.d/*")
	for _, file := range append(files, more...) {
		text, _ := os.ReadFile(file)
		match := regexp.MustCompile(`(?m)^(?:URIs:|deb(?: \[[^]]*\])?) +(\S+/debian)/?(?:\s|$)`).FindSubmatch(text)
		if match != nil {
			return string(match[1]), nil
		}
	}
	return "", errors.New("the machine's apt sources name no Debian mirror")
}

// run runs apt-get, and returns what it says. The error has its complaints.
func (a apt) run(ctx context.Context, args ...string) (string, error) {
	in := func(name string) string { return filepath.Join(a.folder, name) }
	doing := args[0]
	args = append([]string{"-q"}, args...)
	for _, setting := range []string{
		"Dir::State=" + a.folder, "Dir::State::Lists=" + in("lists"), "Dir::State::status=" + in("status"),
		"Dir::Cache=" + a.folder, "Dir::Cache::Archives=" + in("archives"),
		"Dir::Etc::SourceList=" + in("sources.list"), "Dir::Etc::SourceParts=/dev/null",
		"Dir::Etc::Preferences=/dev/null", "Dir::Etc::PreferencesParts=/dev/null",
		"APT::Install-Recommends=false", "APT::Sandbox::User=root", "APT::Update::Error-Mode=any",
		"APT::Update::Post-Invoke=", "APT::Update::Post-Invoke-Success=", "DPkg::Post-Invoke=",
		"Acquire::Languages=none", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
		"Acquire::Retries=2", "Acquire::http::Timeout=20", "Acquire::https::Timeout=20",
	} {
		args = append(args, "-o", setting)
	}
	command := exec.CommandContext(ctx, "apt-get", args...)
	command.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	out, err := command.CombinedOutput()
	if err != nil {
		complaints := regexp.MustCompile(`(?m)^[EW]: .*$`).FindAllString(string(out), 3)
		err = fmt.Errorf("%w: apt-get %s: %w: %s", errMirror, doing, err, strings.Join(complaints, "; "))
	}
	return string(out), err
}

// installed are the packages of the machine itself.
func installed(ctx context.Context) (*release, error) {
	out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Status}\n").Output()
	if err != nil {
		return nil, fmt.Errorf("list the machine's packages: %w", err)
	}
	r := &release{name: machine, packages: map[string]string{}}
	for line := range strings.Lines(string(out)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[2] == "installed" {
			r.packages[fields[0]] = fields[1]
		}
	}
	return r, nil
}
