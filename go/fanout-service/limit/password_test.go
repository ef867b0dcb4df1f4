package limit

import (
	"log/slog"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"rex/fanout-service/internal/redistest"
)

func TestARedisThatRefusesThePasswordIsNotThereUntilItTakesIt(t *testing.T) {
	const password = "password-canary-71e0"
	for given, fault := range map[string]string{"": "no password", "wrong-" + password: "a wrong password"} {
		t.Run(fault, func(t *testing.T) {
			address := redistest.Start(t)
			owner := redis.NewClient(&redis.Options{Addr: address})
			defer func() { _ = owner.Close() }()
			if err := owner.ConfigSet(t.Context(), "requirepass", password).Err(); err != nil {
				t.Fatal(err)
			}
			options := &redis.Options{Addr: address, Password: given}
			SetTimeouts(options)
			client := redis.NewClient(options)
			defer func() { _ = client.Close() }()
			said := &log{}
			s := NewShared(client, "test:", slog.New(slog.NewTextHandler(said, nil)))
			l := New(fixed(2), s, nil)
			for until := time.Now().Add(1600 * time.Millisecond); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
				admit(t, l, askFor("a")).Done(Outcome{})
			}
			if s.Up() || said.count("answers again") != 0 || said.count("own limits") != 1 || said.count(`reason="refused: authentication"`) != 1 {
				t.Errorf("up: %v\n%s", s.Up(), said.String())
			}
			if said.count(password) != 0 || said.count(address) != 0 {
				t.Errorf("the log tells a password or an address:\n%s", said.String())
			}
			if err := owner.ConfigSet(t.Context(), "requirepass", given).Err(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the password is taken", func() bool {
				admit(t, l, askFor("a")).Done(Outcome{})
				return s.Up()
			})
		})
	}
}
