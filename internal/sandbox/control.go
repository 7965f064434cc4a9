package sandbox

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// controlPrefix holds the sandbox's own methods, which the marketplace does not have. They need no token: who serves the
// handler binds it to loopback.
const controlPrefix = "/_sandbox/"

// faultJSON is a [Fault] as POST /_sandbox/faults takes it; the delay is written "10s".
type faultJSON struct {
	Kind    FaultKind `json:"kind"`
	Variant string    `json:"variant,omitempty"`
	Path    string    `json:"path,omitempty"`
	Seller  string    `json:"seller,omitempty"`
	Count   int       `json:"count,omitempty"`
	Rate    float64   `json:"rate,omitempty"`
	Delay   string    `json:"delay,omitempty"`
}

func (f faultJSON) fault() (Fault, error) {
	out := Fault{Kind: f.Kind, Variant: f.Variant, Path: f.Path, Seller: f.Seller, Count: f.Count, Rate: f.Rate}
	if f.Delay == "" {
		return out, nil
	}
	var err error
	if out.Delay, err = time.ParseDuration(f.Delay); err != nil {
		return Fault{}, fmt.Errorf("delay: %w", err)
	}
	return out, nil
}

// maxControlBody is plenty for one fault.
const maxControlBody = 64 << 10

func (s *Sandbox) serveControl(w http.ResponseWriter, r *http.Request) {
	switch r.Method + " " + r.URL.Path {
	case "GET " + controlPrefix + "stats":
		send(w, jsonAnswer(http.StatusOK, typeJSON, s.Stats()))
	case "GET " + controlPrefix + "faults":
		s.sendFaults(w)
	case "POST " + controlPrefix + "faults":
		if err := s.injectFrom(w, r); err != nil {
			send(w, jsonAnswer(http.StatusBadRequest, typeJSON, map[string]string{"error": err.Error()}))
			return
		}
		s.sendFaults(w)
	case "DELETE " + controlPrefix + "faults":
		s.ClearFaults()
		s.sendFaults(w)
	default:
		send(w, jsonAnswer(http.StatusNotFound, typeJSON, map[string]string{
			"error": "no such control; there are GET stats, and GET, POST and DELETE faults",
		}))
	}
}

// injectFrom reads one fault from a request's body.
func (s *Sandbox) injectFrom(w http.ResponseWriter, r *http.Request) error {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxControlBody))
	dec.DisallowUnknownFields()
	var in faultJSON
	if err := dec.Decode(&in); err != nil {
		return fmt.Errorf("read fault: %w", err)
	}
	f, err := in.fault()
	if err != nil {
		return err
	}
	return s.Inject(f)
}

func (s *Sandbox) sendFaults(w http.ResponseWriter) {
	out := []faultJSON{}
	for _, f := range s.Faults() {
		j := faultJSON{Kind: f.Kind, Variant: f.Variant, Path: f.Path, Seller: f.Seller, Count: f.Count, Rate: f.Rate}
		if f.Delay > 0 {
			j.Delay = f.Delay.String()
		}
		out = append(out, j)
	}
	send(w, jsonAnswer(http.StatusOK, typeJSON, out))
}
