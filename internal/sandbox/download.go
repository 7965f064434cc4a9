package sandbox

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"strings"
	"time"

	"syncd/internal/sandbox/kit"
)

// download is a file of a message.
type download struct {
	contentType string
	size        int
	ms          int64 // when it was sent
	// data is what was uploaded. Nil: the file is made up when it is asked for.
	data []byte
}

// keep makes the files of a message ready for download.
func (c *chatWorld) keep(a *wireAttachments, ms int64) {
	for _, i := range a.Images {
		if i.DownloadID != "" {
			// Photos of 20 to 300 kB: the event does not tell.
			c.downloads[i.DownloadID] = download{contentType: "image/jpeg", size: 20_000 + kit.Stream(0, i.DownloadID).IntN(280_000), ms: ms}
		}
	}
	for _, f := range a.Files {
		c.downloads[f.DownloadID] = download{contentType: f.ContentType, size: f.Size, ms: ms}
	}
}

// beginnings let made-up files be recognized for what they are.
var beginnings = map[string]string{"image/jpeg": "\xff\xd8\xff\xe0\x00\x10JFIF\x00", "image/png": "\x89PNG\r\n\x1a\n", "application/pdf": "%PDF-1.7\n"}

// bytes are the file's own, the same every time.
func (d download) bytes(id string) []byte {
	if d.data != nil {
		return d.data
	}
	r := kit.Stream(0, "file "+id)
	out := append(make([]byte, 0, d.size+8), beginnings[d.contentType]...)
	for len(out) < d.size {
		out = binary.NativeEndian.AppendUint64(out, r.Uint64())
	}
	return out[:d.size]
}

// downloadPath is the one path of the API that holds an id.
const downloadPath = "/api/v1/seller/download/"

// retrySeconds is the documented example; whether it is ever another number is not said.
const retrySeconds = 30

// serveDownload answers GET /api/v1/seller/download/{id}.
func serveDownload(c *call) answer {
	id := strings.TrimPrefix(c.r.URL.Path, downloadPath)
	c.world.lock(c.now)
	file, known := c.world.chat.downloads[id]
	spec := c.world.spec
	c.world.mu.Unlock()
	switch {
	case !known:
		a := c.sandbox.chatProblem(http.StatusBadRequest, "invalid fileID")
		a.Title = "invalid fileID" // here it is not the status' text
		return kit.JSON(http.StatusBadRequest, typeJSON, a)
	case c.now.Sub(time.UnixMilli(file.ms)) < spec.ModerateFilesFor:
		return kit.JSON(http.StatusAccepted, typeJSON, struct {
			State string `json:"moderationState"`
			Retry int    `json:"retrySeconds"`
		}{"pending", retrySeconds})
	case kit.Chance(kit.Stream(0, "moderation of "+id), spec.RefusedFiles):
		a := c.sandbox.chatProblem(http.StatusUnavailableForLegalReasons, "moderation error")
		a.Title, a.Error = "Unavailable for Legal Reasons", "" // as documented, in small letters and without an error
		return kit.JSON(http.StatusUnavailableForLegalReasons, typeProblem, a)
	}
	return answer{Status: http.StatusOK, ContentType: file.contentType, Body: [][]byte{file.bytes(id)}}
}

// routeName is how [routes] and the statistics call a request.
func routeName(r *http.Request) string {
	path := r.URL.Path
	if id, ok := strings.CutPrefix(path, downloadPath); ok && id != "" && !strings.Contains(id, "/") {
		path = downloadPath + "{id}"
	}
	return fmt.Sprintf("%s %s", r.Method, path)
}
