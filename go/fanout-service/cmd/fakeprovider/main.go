// Command fakeprovider serves the scripted upstream of package fakeprovider.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"rex/fanout-service/fakeprovider"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "fakeprovider:", err)
		os.Exit(1) //nolint:gocritic // the signal handler dies with the process
	}
}

// greeting is the line on standard output once every listener accepts connections.
type greeting struct {
	Listening string               `json:"listening"` // host:port of the plain listener
	TLS       map[string]tlsOpened `json:"tls,omitempty"`
}

type tlsOpened struct {
	URL string `json:"url"`
	CA  string `json:"ca"` // PEM
}

// run serves until ctx ends.
func run(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	var kinds []string
	flags := flag.NewFlagSet("fakeprovider", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:0", "address to listen on; port 0 chooses a free one")
	http2 := flags.Bool("h2", false, "speak HTTP/2 as well: by prior knowledge in clear text, by ALPN with TLS")
	goaway := flags.Int("goaway-after", 0, "refuse every stream of a clear-text HTTP/2 connection behind the n-th with GOAWAY; 0: none")
	closeIdle := flags.Bool("close-idle", false, "close keep-alive connections, unannounced, as soon as they are idle")
	watch := flags.Bool("exit-on-stdin-eof", false, "end when standard input closes, so that the server dies with its parent")
	catalogue := flags.Bool("catalogue", false, "print the list of scripts and end")
	flags.Func("tls", "listen with TLS as well, on a free port; may be repeated: "+strings.Join(fakeprovider.TLSKinds, ", "), func(kind string) error {
		if !slices.Contains(fakeprovider.TLSKinds, kind) {
			return errors.New("no such kind")
		}
		kinds = append(kinds, kind)
		return nil
	})
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	}
	if *catalogue {
		_, err := io.WriteString(stdout, fakeprovider.Catalogue())
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := fakeprovider.New()
	plain, err := server.Listen(ctx, fakeprovider.Options{Address: *listen, HTTP2: *http2, CloseIdle: *closeIdle, GoawayAfter: *goaway})
	if err != nil {
		return err
	}
	defer func() { _ = plain.Close() }()
	said := greeting{Listening: plain.Address}
	for _, kind := range kinds {
		l, err := server.Listen(ctx, fakeprovider.Options{TLS: kind, HTTP2: *http2, CloseIdle: *closeIdle})
		if err != nil {
			return err
		}
		defer func() { _ = l.Close() }()
		if said.TLS == nil {
			said.TLS = map[string]tlsOpened{}
		}
		said.TLS[kind] = tlsOpened{l.URL, string(l.CA)}
	}
	if err := json.NewEncoder(stdout).Encode(said); err != nil {
		return err
	}
	if *watch {
		go func() {
			_, _ = io.Copy(io.Discard, stdin)
			cancel()
		}()
	}
	<-ctx.Done()
	return nil
}
