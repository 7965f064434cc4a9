package kit

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Faults in place of the answer: the request has no effect.
const (
	// FaultReset closes the connection (by RST where it is TCP) without a byte of answer.
	FaultReset FaultKind = "reset"
	// FaultHang says nothing until the client goes away.
	FaultHang FaultKind = "hang"
)

// Faults of the answer: the request has its effect, the client does not hear of it in order.
const (
	// FaultLostAnswer is FaultReset after the request took effect.
	FaultLostAnswer FaultKind = "lost_answer"
	// FaultResetMidBody announces the whole body, sends half of it and closes the connection.
	FaultResetMidBody FaultKind = "reset_mid_body"
	// FaultTruncated sends half of the JSON as if it were all.
	FaultTruncated FaultKind = "truncated"
	// FaultSlowBody sends the body in pieces over [Fault.Delay], by default over 10 s.
	FaultSlowBody FaultKind = "slow_body"
	// FaultContentType sends the right body as text/html.
	FaultContentType FaultKind = "content_type"
	// FaultGzip compresses the body whether the client asked for it or not.
	FaultGzip FaultKind = "gzip"
	// FaultBOM puts a byte order mark before the body.
	FaultBOM FaultKind = "bom"
	// FaultOversize makes the body 64 MiB longer, by white space before it.
	FaultOversize FaultKind = "oversize"
	// FaultBadEntry spoils the entry in the middle of a list. Variants: not_object, null, no_id, empty_id, deep (20,000
	// levels in a field more), huge (5 MiB in a field more).
	FaultBadEntry FaultKind = "bad_entry"
)

// BadEntries are the variants of [FaultBadEntry].
var BadEntries = []string{"not_object", "null", "no_id", "empty_id", "deep", "huge"}

// Sizes of what is too big, and how long what is slow takes.
const (
	oversize    = 64 << 20 // bytes of an answer
	deepNesting = 20_000
	hugeEntry   = 5 << 20 // bytes
	slowBody    = 10 * time.Second
)

// Silence answers [FaultReset] and [FaultHang]; false: it is another kind.
func Silence(w http.ResponseWriter, r *http.Request, f *Fault) bool {
	switch f.Kind {
	case FaultReset:
		reset(w)
	case FaultHang:
		// net/http notices that the client has gone only after the request's body was read.
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	default:
		return false
	}
	return true
}

// Spoil sends an answer as a fault of the answer wants it; one of another kind changes nothing. lists are the fields that
// hold the lists of the marketplace's answers, ids the names of their entries' ids, the more special ones first.
func Spoil(w http.ResponseWriter, r *http.Request, f *Fault, a Answer, lists, ids []string) {
	body := bytes.Join(a.Body, nil)
	switch f.Kind {
	case FaultLostAnswer:
		reset(w)
		return
	case FaultResetMidBody:
		WriteHead(w, a, len(body))
		_, _ = w.Write(body[:len(body)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler) // not reset: an RST could overtake the half that was sent
	case FaultSlowBody:
		WriteHead(w, a, len(body))
		trickle(w, r, body, f.Delay)
		return
	case FaultTruncated:
		body = body[:len(body)/2]
	case FaultBOM:
		body = append([]byte("\ufeff"), body...)
	case FaultOversize:
		a.Body = padded(body)
		Send(w, a)
		return
	case FaultBadEntry:
		body = spoilEntry(body, f.Variant, lists, ids)
	case FaultContentType:
		a.ContentType = TypeHTML
	case FaultGzip:
		body = compress(body)
		w.Header().Set("Content-Encoding", "gzip")
	}
	a.Body = [][]byte{body}
	Send(w, a)
}

// GatewayPage is nginx' own error page.
func GatewayPage(status int) Answer {
	title := fmt.Sprintf("%d %s", status, http.StatusText(status))
	page := strings.ReplaceAll("<html>\r\n<head><title>TITLE</title></head>\r\n<body>\r\n<center><h1>TITLE</h1></center>\r\n"+
		"<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n", "TITLE", title)
	return Answer{Status: status, ContentType: TypeHTML, Body: [][]byte{[]byte(page)}}
}

func compress(body []byte) []byte {
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	_, _ = zip.Write(body) // a buffer takes everything
	_ = zip.Close()
	return b.Bytes()
}

// trickle sends a body in pieces spread over a time, as long as the client listens.
func trickle(w http.ResponseWriter, r *http.Request, body []byte, over time.Duration) {
	const pieces = 20
	if over == 0 {
		over = slowBody
	}
	step := time.NewTicker(max(over/pieces, 1))
	defer step.Stop()
	for i := range pieces {
		if _, err := w.Write(body[len(body)*i/pieces : len(body)*(i+1)/pieces]); err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
		select {
		case <-step.C:
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
}

// reset closes the connection without an answer.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // HTTP/2, or a recorder in a test: the server's own way of hanging up
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // turns the close into an RST
	}
	_ = conn.Close()
}

// padded is an answer made huge by white space, of which JSON allows any amount. It comes first, so that no reader can be
// done before it.
func padded(body []byte) [][]byte {
	chunk := bytes.Repeat([]byte(" "), 1<<20)
	out := slices.Repeat([][]byte{chunk}, oversize/len(chunk))
	return append(out, body)
}

// spoilEntry spoils the entry in the middle of the answer's list. An answer without entries stays as it is.
func spoilEntry(body []byte, variant string, lists, ids []string) []byte {
	spans := entries(body, lists)
	if len(spans) == 0 {
		return body
	}
	at := spans[len(spans)/2]
	return slices.Concat(body[:at.from], badEntry(body[at.from:at.to], variant, ids), body[at.to:])
}

// span is where something is in an answer.
type span struct{ from, to int }

// entries finds the elements of an answer's list.
func entries(body []byte, lists []string) []span {
	dec := json.NewDecoder(bytes.NewReader(body))
	for field := ""; ; {
		token, err := dec.Token()
		if err != nil {
			return nil // no list, or an item put there by a test that is no JSON
		}
		if token == json.Delim('[') && slices.Contains(lists, field) {
			break
		}
		field, _ = token.(string)
	}
	var out []span
	for dec.More() {
		var element json.RawMessage
		if dec.Decode(&element) != nil {
			return nil
		}
		end := int(dec.InputOffset())
		out = append(out, span{end - len(element), end})
	}
	return out
}

func badEntry(entry []byte, variant string, ids []string) []byte {
	switch variant {
	case "not_object":
		return []byte(`"odd"`)
	case "null":
		return []byte(`null`)
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(entry, &fields) != nil {
		return entry
	}
	id := ids[max(0, slices.IndexFunc(ids, func(name string) bool { return fields[name] != nil }))]
	switch variant {
	case "no_id":
		delete(fields, id)
	case "empty_id":
		fields[id] = json.RawMessage(`""`)
	case "deep": // encoding/json itself would refuse it
		deep := strings.Repeat("[", deepNesting) + strings.Repeat("]", deepNesting)
		return fmt.Appendf(nil, `{"extra":%s,%s`, deep, entry[1:])
	case "huge":
		return fmt.Appendf(nil, `{"extra":"%s",%s`, strings.Repeat("x", hugeEntry), entry[1:])
	}
	return Render(fields)
}
