package command_test

import (
	"crypto/sha256"
	"fmt"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdPutLock puts a lock into S3 where channels of a folder look for it.
func cmdPutLock(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 3, "s3-put-lock BUCKET FOLDER FILE")
	lock := []byte(ts.ReadFile(args[2]))
	worldOf(ts).ec2(ts).PutObject(args[0], fmt.Sprintf("%s/locks/sha256-%x.lock", args[1], sha256.Sum256(lock)), lock)
}
