package report

import "time"

// Channel is how an instance came by the lock it launches with.
type Channel struct {
	Source   string    `json:"source"` // the channel's address, without credentials
	Name     string    `json:"name"`
	Revision int       `json:"revision"`
	Role     string    `json:"role"`           // stable or candidate
	Lock     string    `json:"lock"`           // sha256:HEX
	Wave     int       `json:"wave,omitempty"` // of the instance, 1 to 100; 0: it has none
	Share    int       `json:"share"`          // of the candidate when it was chosen, in percent
	Why      string    `json:"why"`            // a clause
	Chosen   time.Time `json:"chosen"`
	Kept     bool      `json:"kept,omitempty"`   // chosen at an earlier launch of this instance
	Failed   *Trial    `json:"failed,omitempty"` // the candidate in whose place the stable lock is used
}

// Trial is a launch with a candidate that failed.
type Trial struct {
	Lock   string `json:"lock"`
	Report string `json:"report"` // id
	Phase  Phase  `json:"phase,omitempty"`
	Step   string `json:"step,omitempty"`
	Error  string `json:"error"`
}

// Channel tells how the launch came by its lock, and gives that without secrets.
func (r *Recorder) Channel(c Channel) *Channel {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.Source, c.Why = r.clean(c.Source), r.clean(c.Why)
	if c.Failed != nil {
		failed := *c.Failed
		failed.Error = r.clean(failed.Error)
		c.Failed = &failed
	}
	r.rep.Channel = &c
	shown := c
	return &shown
}
