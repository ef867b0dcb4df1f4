package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"rex/fanout-service/fakeprovider"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestItSaysWhereItListensAndEndsWithItsParent(t *testing.T) {
	parent, hold := io.Pipe()
	read, stdout := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(t.Context(), []string{"--exit-on-stdin-eof", "--h2", "--tls", "valid", "--tls", "stall"}, parent, stdout)
	}()
	line, err := bufio.NewReader(read).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var said greeting
	if err := json.Unmarshal(line, &said); err != nil || len(said.TLS) != 2 {
		t.Fatalf("%s %v", line, err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(said.TLS["valid"].CA))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	for _, url := range []string{"http://" + said.Listening, said.TLS["valid"].URL} {
		response, err := (&http.Client{Transport: transport}).Get(url + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
	}
	transport.CloseIdleConnections()
	_ = hold.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestTheFlagsAreChecked(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stop()
	for _, args := range [][]string{{"--tls", "rot13"}, {"--listen", "nowhere"}, {"--no-such-flag"}} {
		if err := run(ctx, args, strings.NewReader(""), io.Discard); err == nil {
			t.Errorf("%v is taken", args)
		}
	}
	var printed bytes.Buffer
	if err := run(ctx, []string{"--catalogue"}, strings.NewReader(""), &printed); err != nil || printed.String() != fakeprovider.Catalogue() {
		t.Errorf("%v: %.80s", err, printed.String())
	}
}
