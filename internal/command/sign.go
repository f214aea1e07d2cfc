package command

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/sign"
)

// signFormat is the format number of what sign and verify print as JSON.
const signFormat = 1

// passwordVariable holds the password of a private key where nobody can be asked, as in CI.
const passwordVariable = "AMIAGENT_KEY_PASSWORD"

// maxSigned bounds what is signed and verified: locks and manifests are far smaller.
const maxSigned = 64 << 20

type signature struct {
	Format    int    `json:"format"`
	File      string `json:"file"`
	Signature string `json:"signature"`
	Key       string `json:"key"`            // id
	Name      string `json:"name,omitempty"` // of the trusted key
}

func (a *app) signCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "sign KEY FILE",
		Short: "Sign a lock or a manifest",
		Long: "Write FILE" + sign.Suffix + ", a signature by the private key in the file KEY, as minisign -G makes it.\n" +
			"The password is asked for, or taken from " + passwordVariable + "; a key made with minisign -G -W has none.\n" +
			"Put the signature beside the document, at its address with " + sign.Suffix + " at its end.",
		Args: cobra.ExactArgs(2),
	}
	c.RunE = func(_ *cobra.Command, names []string) error {
		key, err := readLimited(names[0], sign.MaxBytes)
		if err != nil {
			return usage{fmt.Errorf("cannot read the key %s: %w", names[0], host.Cause(err))}
		}
		data, err := readWhole(names[1])
		if err != nil {
			return err
		}
		s, id, err := sign.Sign(key, a.password, names[1], data)
		if err != nil {
			return diag.WithHint(fmt.Errorf("cannot sign %s: %w", names[1], err), "%s", diag.Hint(err))
		}
		out := names[1] + sign.Suffix
		if err := replace(out, s); err != nil {
			return fmt.Errorf("cannot write %s: %w", out, host.Cause(err))
		}
		if a.json() {
			return printJSON(a.stdout, signature{Format: signFormat, File: names[1], Signature: out, Key: id})
		}
		_, err = fmt.Fprintf(a.stdout, "%s is signed by key %s: %s\n", names[1], id, out)
		return err
	}
	return c
}

// readWhole reads a document that is signed: all of it, or nothing.
func readWhole(name string) ([]byte, error) {
	data, err := readLimited(name, maxSigned)
	if err == nil && len(data) > maxSigned {
		err = fmt.Errorf("more than %d bytes", maxSigned)
	}
	if err != nil {
		return nil, usage{fmt.Errorf("cannot read %s: %w", name, host.Cause(err))}
	}
	return data, nil
}

// password is that of a private key.
func (a *app) password() (string, error) {
	if word, ok := a.env(passwordVariable); ok {
		return word, nil
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", diag.WithHint(errors.New("there is no terminal to ask at"), "set %s", passwordVariable)
	}
	defer tty.Close()
	fmt.Fprint(tty, "Password of the key: ")
	word, err := term.ReadPassword(int(tty.Fd()))
	fmt.Fprintln(tty)
	return string(word), err
}

func (a *app) verifyCommand() *cobra.Command {
	var public []string
	c := &cobra.Command{
		Use:   "verify FILE",
		Short: "Say whether a trusted key has signed a file",
		Long: "Hold FILE against FILE" + sign.Suffix + ". Trusted are the keys in " + sign.TrustedDir + ", or those given by --key.\n" +
			"Exit code 6 says that none of them has signed it.",
		Args: cobra.ExactArgs(1),
	}
	c.Flags().StringArrayVar(&public, "key", nil, "trust the public key in this `file`, and no other; may be given several times")
	c.RunE = func(_ *cobra.Command, names []string) error {
		ring, err := a.keyring(public)
		if err != nil {
			return err
		}
		data, err := readWhole(names[0])
		if err != nil {
			return err
		}
		s, err := readLimited(names[0]+sign.Suffix, sign.MaxBytes)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return usage{fmt.Errorf("cannot read %s: %w", names[0]+sign.Suffix, host.Cause(err))}
		}
		k, err := ring.Verify(names[0], data, s)
		if err != nil {
			return err
		}
		if a.json() {
			return printJSON(a.stdout, signature{Format: signFormat, File: names[0], Signature: names[0] + sign.Suffix, Key: k.ID(), Name: k.Name})
		}
		_, err = fmt.Fprintf(a.stdout, "%s is signed by key %s\n", names[0], k)
		return err
	}
	return c
}

func (a *app) keyring(public []string) (sign.Keyring, error) {
	if len(public) == 0 {
		h, err := a.host()
		if err != nil {
			return nil, err
		}
		return sign.Trusted(h)
	}
	var ring sign.Keyring
	for _, name := range public {
		text, err := readLimited(name, sign.MaxBytes)
		if err != nil {
			return nil, usage{fmt.Errorf("cannot read the key %s: %w", name, host.Cause(err))}
		}
		k, err := sign.ParseKey(name, text)
		if err != nil {
			return nil, usage{err}
		}
		ring = append(ring, k)
	}
	return ring, nil
}
