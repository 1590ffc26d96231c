package rabbitmq

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// pipe is a TCP connection with a wire at one end.
func pipe(t *testing.T, timeout time.Duration) (*wire, net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close() //nolint:errcheck // one connection is all
	near, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	far, err := listener.Accept()
	require.NoError(t, err)
	w := newWire(near, timeout)
	t.Cleanup(func() {
		w.kill()
		<-w.ended
		far.Close() //nolint:errcheck // the test is over
	})
	return w, far
}

func TestWireSendsEverythingBeforeItCloses(t *testing.T) {
	w, far := pipe(t, time.Minute)
	want := make([]byte, 0, 100_000)
	for i := range 1000 {
		part := make([]byte, 100)
		part[0], part[1] = byte(i), byte(i>>8)
		n, err := w.Write(part)
		require.NoError(t, err)
		require.Equal(t, len(part), n)
		want = append(want, part...)
	}
	require.NoError(t, w.Close())
	require.NoError(t, w.Close())
	_, err := w.Write([]byte("late"))
	require.ErrorIs(t, err, net.ErrClosed)
	got, err := io.ReadAll(far)
	require.NoError(t, err)
	assert.Equal(t, want, got)
	<-w.ended
}

func TestWireReads(t *testing.T) {
	w, far := pipe(t, time.Minute)
	_, err := far.Write([]byte("hello"))
	require.NoError(t, err)
	buffer := make([]byte, 5)
	_, err = io.ReadFull(w, buffer)
	require.NoError(t, err)
	assert.Equal(t, "hello", string(buffer))
	require.NoError(t, w.SetDeadline(time.Unix(1, 0)))
	_, err = w.Read(buffer)
	require.Error(t, err)
	require.NoError(t, w.SetWriteDeadline(time.Unix(1, 0)))
	_, err = w.Write([]byte("still"))
	require.NoError(t, err)
}

// A peer that reads nothing blocks neither Write nor anybody for longer than the
// timeout.
func TestWireGivesUpAPeerThatStalls(t *testing.T) {
	w, _ := pipe(t, 50*time.Millisecond)
	require.Nil(t, w.full())
	_, err := w.Write(make([]byte, 64<<20))
	require.NoError(t, err)
	room := w.full()
	require.NotNil(t, room)
	require.Equal(t, room, w.full())
	<-w.ended
	<-room
	assert.Nil(t, w.full(), "who waits finds out that it is dead")
	_, err = w.Write([]byte("late"))
	assert.ErrorIs(t, err, net.ErrClosed)
}

func TestWireLeavesRoomWhenThePeerReads(t *testing.T) {
	w, far := pipe(t, time.Minute)
	_, err := w.Write(make([]byte, 32<<20))
	require.NoError(t, err)
	room := w.full()
	require.NotNil(t, room)
	go io.Copy(io.Discard, far) //nolint:errcheck // ends with the connection
	<-room
	assert.Nil(t, w.full())
}

func TestPauseGrowsToItsLimit(t *testing.T) {
	p := newPause(time.Second)
	for range 100 {
		assert.LessOrEqual(t, p.next(false), time.Second)
	}
	assert.GreaterOrEqual(t, p.next(false), 300*time.Millisecond)
	assert.Equal(t, time.Second, p.next(true))
	p.lived(time.Now())
	assert.GreaterOrEqual(t, p.next(false), 300*time.Millisecond, "what broke at once does not count")
	p.lived(time.Now().Add(-time.Minute))
	assert.LessOrEqual(t, p.next(false), 150*time.Millisecond)
}
