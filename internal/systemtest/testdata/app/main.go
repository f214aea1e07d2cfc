// Command app is the service that the tests launch: a web server that is well
// as long as it can read its configuration.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
	"strings"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: app serve|check|warm FILE")
	}
	verb, file := os.Args[1], os.Args[2]
	switch verb {
	case "warm":
		if err := os.WriteFile(file, []byte("warm\n"), 0o600); err != nil {
			log.Fatal(err)
		}
	case "check":
		read(file)
	case "serve":
		color := read(file)
		http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, color) })
		log.Fatal(http.ListenAndServe(":8080", nil))
	}
}

// read gives the color of a configuration that has all it must have.
func read(file string) (color string) {
	b, err := os.ReadFile(file)
	if err != nil {
		log.Fatal(err)
	}
	values := map[string]string{}
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), " = ")
		values[k] = v
	}
	for _, k := range []string{"color", "instance", "password"} {
		if values[k] == "" {
			log.Fatalf("%s is missing", k)
		}
	}
	return values["color"]
}
