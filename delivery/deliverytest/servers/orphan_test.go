package servers_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A server ends with the process that started it, however that ends, and with
// all that the server started itself.
func TestServersDieWithTheirProcess(t *testing.T) {
	t.Parallel()
	needServers(t)
	if runtime.GOOS != "linux" {
		return // Linux alone promises it, and has /proc
	}
	for _, how := range []string{"panic", "kill"} {
		t.Run(how, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "barid-orphans-") // what t.TempDir makes is closed to PostgreSQL's user
			require.NoError(t, err)
			defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
			dir, err = filepath.EvalSymlinks(dir)
			require.NoError(t, err)
			program, err := os.Executable()
			require.NoError(t, err)
			host := exec.Command(program)
			host.Env = append(os.Environ(), hostVariable+"="+how, "BARID_SERVERS_DIR="+dir)
			out, err := host.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, host.Start())
			line, err := bufio.NewReader(out).ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, "ready\n", line)
			if how == "kill" {
				require.NotEmpty(t, processesIn(dir))
				require.NoError(t, host.Process.Kill())
			}
			require.Error(t, host.Wait())
			require.Eventually(t, func() bool { return len(processesIn(dir)) == 0 }, patience, 10*time.Millisecond,
				"processes stayed behind")
		})
	}
}

// processesIn lists the processes that work in the folder or below.
func processesIn(dir string) []string {
	var found []string
	links, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, link := range links {
		if folder, err := os.Readlink(link); err == nil && (folder == dir || strings.HasPrefix(folder, dir+"/")) {
			command, _ := os.ReadFile(filepath.Join(filepath.Dir(link), "comm"))
			found = append(found, string(command))
		}
	}
	return found
}
