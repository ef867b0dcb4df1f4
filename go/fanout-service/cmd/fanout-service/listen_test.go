package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAPortInUseIsSaidByName(t *testing.T) {
	service := start(t, fake(t)).quiet()
	defer service.end()
	taken := strings.TrimPrefix(service.url, "http://")
	for name, pairs := range map[string]map[string]string{
		"REX_FANOUT_LISTEN":       {"REX_FANOUT_LISTEN": taken},
		"REX_FANOUT_PPROF_LISTEN": {"REX_FANOUT_LISTEN": "127.0.0.1:0", "REX_FANOUT_PPROF_LISTEN": taken},
	} {
		err := run(t.Context(), nil, env(pairs), strings.NewReader(""), io.Discard)
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestProfilesAreServedApartFromEverythingElse(t *testing.T) {
	pairs := fake(t)
	pairs["REX_FANOUT_PPROF_LISTEN"] = "127.0.0.1:0"
	service := start(t, pairs)
	defer service.end()
	profiles, _ := service.line()["pprof_address"].(string)
	service.quiet()
	if status, body := get(t, "http://"+profiles+"/debug/pprof/"); status != http.StatusOK || !strings.Contains(body, "goroutine") {
		t.Errorf("profiles: %d", status)
	}
	if status, _ := get(t, service.url+"/debug/pprof/"); status != http.StatusNotFound {
		t.Errorf("profiles on the service's own address: %d", status)
	}
}

func TestASocketFileIsListenedOnAndALeftoverIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rex.sock")
	left, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	left.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = left.Close()
	service := start(t, map[string]string{"REX_FANOUT_LISTEN": "unix:" + path}).quiet()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: dial}}
	response, err := client.Get("http://rex/healthz")
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	err = run(t.Context(), nil, env(map[string]string{"REX_FANOUT_LISTEN": "unix:" + path}), strings.NewReader(""), io.Discard)
	if err == nil || !strings.Contains(err.Error(), "REX_FANOUT_LISTEN: another process listens") {
		t.Errorf("a second service at the same file: %v", err)
	}
	client.CloseIdleConnections()
	service.end()
	plain := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(plain, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	err = run(t.Context(), nil, env(map[string]string{"REX_FANOUT_LISTEN": "unix:" + plain}), strings.NewReader(""), io.Discard)
	if kept, _ := os.ReadFile(plain); err == nil || !bytes.Equal(kept, []byte("data")) {
		t.Errorf("a file that is no socket: %v, kept %q", err, kept)
	}
}
