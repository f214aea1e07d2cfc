package report_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/amiagent/amiagent/internal/report"
)

func TestSecretsAreTakenOutOfTexts(t *testing.T) {
	const key = "-----BEGIN KEY-----\nMIIEvQIBADAN+/bg==\nkqhkiG9w0BAQEF\n-----END KEY-----\n"
	var r report.Redactor
	for _, s := range []string{"hunter2hunter2", "hunter2", `pass"word\1`, "a b&c/d=é", key, "yes", ""} {
		r.Add(s)
	}
	for text, want := range map[string]string{
		"connected with hunter2 to db":                 "connected with «redacted» to db",
		"hunter2hunter2":                               "«redacted»",
		"hunter2hunter2hunter2":                        "«redacted»«redacted»",
		`{"p":"pass\"word\\1"}`:                        `{"p":"«redacted»"}`,
		`pass"word\1`:                                  "«redacted»",
		"https://h/?p=" + url.QueryEscape("a b&c/d=é"): "https://h/?p=«redacted»",
		"https://h/" + url.PathEscape("a b&c/d=é"):     "https://h/«redacted»",
		"Authorization: " + base64.StdEncoding.EncodeToString([]byte("hunter2hunter2")): "Authorization: «redacted»=",
		"read MIIEvQIBADAN+/bg== of the key":                                            "read «redacted» of the key",
		"yes, nothing to hide":                                                          "yes, nothing to hide",
		"":                                                                              "",
	} {
		if got := r.Clean(text); strings.TrimRight(got, "=") != strings.TrimRight(want, "=") {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
	whole, _ := json.Marshal(key)
	if got := r.Clean(string(whole)); strings.Contains(got, "MIIE") || strings.Contains(got, "kqhk") {
		t.Errorf("left of the key: %s", got)
	}
}

func TestARedactorWithoutSecretsChangesNothing(t *testing.T) {
	var none *report.Redactor
	var zero report.Redactor
	if none.Clean("text") != "text" || zero.Clean("text") != "text" {
		t.Error("changed a text")
	}
}

func TestSecretsComeWhileTextsAreCleaned(t *testing.T) {
	var r report.Redactor
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			secret := fmt.Sprintf("secret-%d-secret", i)
			r.Add(secret)
			if got := r.Clean("x " + secret); got != "x «redacted»" {
				t.Errorf("got %q", got)
			}
		})
	}
	wg.Wait()
}
