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
func pipe(t *testing.T, timeout time.Duration) (*tcpConn, net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close() //nolint:errcheck // one connection is all
	near, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	far, err := listener.Accept()
	require.NoError(t, err)
	c := newTCPConn(near, timeout)
	t.Cleanup(func() {
		c.kill()
		<-c.ended
		far.Close() //nolint:errcheck // the test is over
	})
	return c, far
}

func TestWireSendsEverythingBeforeItCloses(t *testing.T) {
	c, far := pipe(t, time.Minute)
	want := make([]byte, 0, 100_000)
	for i := range 1000 {
		part := make([]byte, 100)
		part[0], part[1] = byte(i), byte(i>>8)
		n, err := c.Write(part)
		require.NoError(t, err)
		require.Equal(t, len(part), n)
		want = append(want, part...)
	}
	require.NoError(t, c.Close())
	require.NoError(t, c.Close())
	_, err := c.Write([]byte("late"))
	require.ErrorIs(t, err, net.ErrClosed)
	got, err := io.ReadAll(far)
	require.NoError(t, err)
	assert.Equal(t, want, got)
	<-c.ended
}

func TestWireReads(t *testing.T) {
	c, far := pipe(t, time.Minute)
	_, err := far.Write([]byte("hello"))
	require.NoError(t, err)
	buffer := make([]byte, 5)
	_, err = io.ReadFull(c, buffer)
	require.NoError(t, err)
	assert.Equal(t, "hello", string(buffer))
	require.NoError(t, c.SetDeadline(time.Unix(1, 0)))
	_, err = c.Read(buffer)
	require.Error(t, err)
	require.NoError(t, c.SetWriteDeadline(time.Unix(1, 0)))
	_, err = c.Write([]byte("still"))
	require.NoError(t, err)
}

// A peer that reads nothing blocks neither Write nor anybody for longer than the
// timeout.
func TestWireGivesUpAPeerThatStalls(t *testing.T) {
	c, _ := pipe(t, 50*time.Millisecond)
	require.Nil(t, c.full())
	_, err := c.Write(make([]byte, 64<<20))
	require.NoError(t, err)
	room := c.full()
	require.NotNil(t, room)
	require.Equal(t, room, c.full())
	<-c.ended
	<-room
	assert.Nil(t, c.full(), "whoever waits finds out that it is dead")
	_, err = c.Write([]byte("late"))
	assert.ErrorIs(t, err, net.ErrClosed)
}

func TestWireLeavesRoomWhenThePeerReads(t *testing.T) {
	c, far := pipe(t, time.Minute)
	_, err := c.Write(make([]byte, 32<<20))
	require.NoError(t, err)
	room := c.full()
	require.NotNil(t, room)
	go io.Copy(io.Discard, far) //nolint:errcheck // ends with the connection
	<-room
	assert.Nil(t, c.full())
}
