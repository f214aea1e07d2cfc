package command

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/amiagent/amiagent/internal/channel"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/sign"
)

// saveFlags are the flags of what changes a channel's file; the function that
// it gives signs and saves the file, and says what changed. The key is opened
// before the file is touched.
func (a *app) saveFlags(c *cobra.Command) func(name string, ch *channel.Channel, what string) error {
	keyFile := c.Flags().String("sign", "", "sign the file with this private minisign `key`; the signature goes beside it")
	return func(name string, ch *channel.Channel, what string) error {
		var signature []byte
		if *keyFile != "" {
			key, err := readLimited(*keyFile, sign.MaxBytes)
			if err != nil {
				return usage{fmt.Errorf("cannot read the key %s: %w", *keyFile, host.Cause(err))}
			}
			if signature, _, err = sign.Sign(key, a.password, name, ch.Bytes()); err != nil {
				return err
			}
		}
		if err := replace(name, ch.Bytes()); err != nil {
			return fmt.Errorf("cannot save the channel: %w", err)
		}
		if signature != nil {
			if err := replace(name+sign.Suffix, signature); err != nil {
				return fmt.Errorf("cannot save the signature: %w", err)
			}
		} else if _, err := os.Stat(name + sign.Suffix); err == nil {
			fmt.Fprintf(a.stderr, "amiagent: %s is of the file before this change: sign it again\n", name+sign.Suffix)
		}
		if a.json() {
			return printJSON(a.stdout, struct {
				Format  int              `json:"format"`
				Changed string           `json:"changed"`
				Channel *channel.Channel `json:"channel"`
			}{channelFormat, what, ch})
		}
		_, err := fmt.Fprintf(a.stdout, "%s is at revision %d: %s\n", name, ch.Revision, what)
		return err
	}
}

// replace writes a file of the user's whole or not at all.
func replace(name string, data []byte) error {
	mode := os.FileMode(0o644)
	if st, err := os.Stat(name); err == nil {
		mode = st.Mode().Perm()
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".amiagent-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
