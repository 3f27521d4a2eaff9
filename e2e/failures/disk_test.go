package failures

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tollgate.internal/e2e/internal/site"
)

// The disk under SQLite is full: changes are refused with the reason, what was
// acknowledged is there, clients go on, and so do changes as soon as there is room.
func TestFullDisk(t *testing.T) {
	disk := t.TempDir()
	b := start(t, site.Options{Database: "sqlite:" + filepath.Join(disk, "tollgate.db"), Portals: 1, Nodes: 1, Disk: disk, DiskBytes: 16 << 20})
	working := b.work(t, false)
	portal := b.Portals[0]
	kept := int64(0)
	change := func() site.Answer {
		t.Helper()
		a, err := b.Ask(t.Context(), portal, http.MethodPost, "/v1/apply", pair(kept+1))
		if err != nil {
			t.Fatal(err)
		}
		if a.Status == http.StatusOK {
			kept++
		}
		return a
	}
	if a := change(); a.Status != http.StatusOK {
		t.Fatal(a)
	}
	reserve := portal.Path(filepath.Join(disk, "reserve"))
	fill(t, reserve)
	refused := site.Answer{}
	for n := 0; refused.Status == 0; n++ {
		if a := change(); a.Status != http.StatusOK {
			refused = a
		}
		if n > 100_000 {
			t.Fatal("the disk does not get full")
		}
		fill(t, reserve) // what was given back meanwhile
	}
	if refused.Status != http.StatusInsufficientStorage || !strings.Contains(refused.Body, "disk is full") || !strings.Contains(refused.Body, "nothing of this change was kept") {
		t.Errorf("on a full disk: %d %s", refused.Status, refused.Body)
	}
	shows := func() {
		t.Helper()
		a, err := b.Ask(t.Context(), portal, http.MethodGet, "/v1/virtual-clusters/acme/acls", "")
		if err != nil || a.Status != http.StatusOK {
			t.Fatalf("a look at a full disk: %d %s, %v", a.Status, a.Body, err)
		}
		for _, name := range pairName {
			if !strings.Contains(a.Body, fmt.Sprintf(`"%s-%d"`, name, kept)) {
				t.Errorf("%d changes were kept, and there is %s", kept, a.Body)
			}
		}
	}
	shows()
	working.goOn(t)
	if err := os.Remove(reserve); err != nil {
		t.Fatal(err)
	}
	changing := kept + 5
	site.Eventually(t, "changes with room again", func(context.Context) error {
		if a := change(); a.Status != http.StatusOK {
			return fmt.Errorf("%d %s", a.Status, a.Body)
		} else if kept < changing {
			return fmt.Errorf("%d so far", kept)
		}
		return nil
	})
	shows()
	working.end(t)
}

// fill takes all the room that is left.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 64 << 10; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
