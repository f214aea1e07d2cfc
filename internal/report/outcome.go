package report

// Unverified is a step that was left alone because a secret it needs cannot be
// read now; it is as it was when this instance last converged on it.
const Unverified Outcome = "unverified"

// Past is the outcome as the end of a sentence about a step: "needs x, which failed".
func (o Outcome) Past() string {
	switch o {
	case Blocked:
		return "was blocked"
	case Ignored:
		return "failed"
	}
	return string(o)
}
