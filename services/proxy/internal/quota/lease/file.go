package lease

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// remembered reads the number of nodes; 0: there is none yet.
func remembered(file string) (int64, error) {
	if file == "" {
		return 0, nil
	}
	raw, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("read the number of nodes: %w", err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 32)
	if err != nil || n < 1 {
		return 0, nil // the machine went down while it was written: as if there were none
	}
	return n, nil
}

// remember replaces the file whole.
func remember(file string, nodes int64) error {
	fresh := file + ".new"
	if err := os.WriteFile(fresh, []byte(strconv.FormatInt(nodes, 10)+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(fresh, file)
}
