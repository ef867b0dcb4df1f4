// Command fanoutload is the load generator under scripts/fanout_load_test.py, and the two servers
// its measurements need.
//
//	fanoutload upstream        serves loadtest.Upstream
//	fanoutload proxy --to URL  serves a bare reverse proxy in front of URL
//	fanoutload measure         reads {"what": "rate", …} from standard input, prints the result
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"rex/fanout-service/loadtest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "fanoutload:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	if len(args) == 0 {
		return errors.New("say upstream, proxy or measure")
	}
	switch args[0] {
	case "measure":
		return measure(ctx, stdin, stdout)
	case "upstream":
		return serve(ctx, args, loadtest.NewUpstream(), stdin, stdout)
	case "proxy":
		return serve(ctx, args, nil, stdin, stdout)
	default:
		return fmt.Errorf("%q is none of upstream, proxy and measure", args[0])
	}
}

// serve prints {"listening":"host:port"} once it accepts connections and serves until ctx ends. A
// nil handler is a proxy.
func serve(ctx context.Context, args []string, handler http.Handler, stdin io.Reader, stdout io.Writer) error {
	flags := flag.NewFlagSet("fanoutload "+args[0], flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:0", "address to listen on; port 0 chooses a free one")
	watch := flags.Bool("exit-on-stdin-eof", false, "end when standard input closes, so that the server dies with its parent")
	to := flags.String("to", "", "what a proxy stands in front of")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if handler == nil {
		address, err := url.Parse(*to)
		if err != nil || address.Host == "" {
			return errors.New("--to: not an address")
		}
		handler = loadtest.NewProxy(address)
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", *listen)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(stdout).Encode(map[string]string{"listening": listener.Addr().String()}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if *watch {
		go func() {
			_, _ = io.Copy(io.Discard, stdin)
			cancel()
		}()
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// measure runs the one measurement the input asks for.
func measure(ctx context.Context, stdin io.Reader, stdout io.Writer) error {
	raw, err := io.ReadAll(stdin)
	if err != nil {
		return err
	}
	result, err := loadtest.Measure(ctx, raw)
	if err != nil {
		return err
	}
	return json.NewEncoder(stdout).Encode(result)
}
