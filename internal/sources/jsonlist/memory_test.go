package jsonlist_test

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"syncd/internal/sources/jsonlist"
)

// repeated is a long body that takes no memory: head, n times unit, tail.
type repeated struct {
	head, unit, tail string
	n, at            int
}

func (r *repeated) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if r.at == len(r.head) {
			if r.n--; r.n >= 0 {
				r.head, r.at = r.unit, 0
			} else if r.tail != "" {
				r.head, r.tail, r.at = r.tail, "", 0
			} else {
				return n, io.EOF
			}
		}
		c := copy(p[n:], r.head[r.at:])
		n, r.at = n+c, r.at+c
	}
	return n, nil
}

// item is one of about 2 KB, as long as a question is.
var item = `{"id":"2ncBtX4B9I0UHoornoqG","text":"` + strings.Repeat("Вопрос, \\\"длинный\\\" ", 36) +
	`","createdDate":"2022-02-01T11:18:08.769513469Z","state":"suppliersPortalSynch","answer":null,"productDetails":{"imtId":11157265,"nmId":14917842,"productName":"Coffee","supplierArticle":"123401","supplierName":" ГП Реклама и услуги","brandName":"Nescafe","more":[` +
	strings.Repeat(`{"a":1,"b":[true,false]},`, 20) + `null]},"wasViewed":false,"isWarned":false}`

// TestManyItemsTakeTheMemoryOfOne: what is alive while a page of 100 MB is read
// does not depend on how much of it has been read.
func TestManyItemsTakeTheMemoryOfOne(t *testing.T) {
	var before, now runtime.MemStats
	n, most := 0, uint64(0)
	total := 100 << 20 / len(item)
	body := &repeated{head: `{"data":{"questions":[`, unit: item + ",", n: total, tail: item + `]}}`}
	runtime.GC()
	runtime.ReadMemStats(&before)
	_, err := jsonlist.Read(body, jsonlist.List{Path: path, Each: func([]byte) error {
		if n++; n%(total/20) == 0 {
			runtime.GC()
			runtime.ReadMemStats(&now)
			most = max(most, now.HeapAlloc)
		}
		return nil
	}})
	if err != nil || n != total+1 {
		t.Errorf("%d elements, %v", n, err)
	}
	if most > before.HeapAlloc+256<<10 {
		t.Errorf("%d KiB are alive, %d KiB were before", most>>10, before.HeapAlloc>>10)
	}
}

// TestHugePartsTakeNoMemory: an element, a member, a name, and a depth of 32 MB
// each.
func TestHugePartsTakeNoMemory(t *testing.T) {
	const big = 32 << 20
	for name, body := range map[string]*repeated{
		"element": {head: `{"data":{"questions":["`, unit: strings.Repeat("x", 1<<10), n: big >> 10, tail: `"]}}`},
		"depth":   {head: `{"data":{"questions":[`, unit: strings.Repeat("[", 1<<10), n: big >> 10, tail: `]}}`},
		"member":  {head: `{"error":["`, unit: strings.Repeat("x", 1<<10), n: big >> 10, tail: `"]}`},
		"name":    {head: `{"`, unit: strings.Repeat("x", 1<<10), n: big >> 10, tail: `":1}`},
		"members": {head: `{"a":1`, unit: `,"b":"` + strings.Repeat("x", 1<<10) + `"`, n: big >> 10, tail: `}`},
		"space":   {head: `{`, unit: strings.Repeat(" ", 1<<10), n: big >> 10, tail: `}`},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			odd := 0
			runtime.ReadMemStats(&before)
			_, err := jsonlist.Read(body, jsonlist.List{Path: path, Odd: func(raw []byte, _ string) { odd += len(raw) }})
			runtime.ReadMemStats(&after)
			if (err != nil) != (name == "depth") || name == "element" && odd != 4096 {
				t.Errorf("%d bytes of an odd element, %v", odd, err)
			}
			most := uint64(8 << 20) // an element of 1 MiB that grows
			if name == "members" {
				most = 96 << 20 // each replaces the one before
			}
			if got := after.TotalAlloc - before.TotalAlloc; got > most {
				t.Errorf("%d KiB were allocated", got>>10)
			}
		})
	}
}

// BenchmarkRead reads a page of 10 MB and 5,000 items, as Read does it and as
// encoding/json does it when it gets the whole.
func BenchmarkRead(b *testing.B) {
	const items = 5000
	page := `{"data":{"countArchive":508,"questions":[` + strings.Repeat(item+",", items-1) + item + `]},"error":false}`
	count := func(b *testing.B, n int, err error) {
		if n != items || err != nil {
			b.Fatal(n, err)
		}
	}
	b.Run("jsonlist", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(page)))
		for b.Loop() {
			n := 0
			_, err := jsonlist.Read(strings.NewReader(page), jsonlist.List{Path: path, Each: func([]byte) error { n++; return nil }})
			count(b, n, err)
		}
	})
	b.Run("encoding-json", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(page)))
		for b.Loop() {
			var v struct {
				Data struct {
					Questions []json.RawMessage `json:"questions"`
				} `json:"data"`
			}
			raw, err := io.ReadAll(strings.NewReader(page))
			if err == nil {
				err = json.Unmarshal(raw, &v)
			}
			count(b, len(v.Data.Questions), err)
		}
	})
	if got := fmt.Sprintf("%.0f", float64(len(page))/1e6); got != "10" && got != "11" {
		b.Fatalf("a page of %s MB", got)
	}
}
