package dev

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Info is dev.json: how to reach what runs.
type Info struct {
	Listen          string           `json:"listen"`
	Domain          string           `json:"domain"`
	CAFile          string           `json:"caFile"`
	HostsFile       string           `json:"hostsFile"`
	API             string           `json:"api"`
	APIToken        string           `json:"apiToken"`
	Nodes           []Node           `json:"nodes"`
	Upstreams       []UpstreamInfo   `json:"upstreams"`
	VirtualClusters []VirtualCluster `json:"virtualClusters"`
}

// Node is one proxy.
type Node struct {
	ID      string `json:"id"`
	PID     int    `json:"pid"`
	Listen  string `json:"listen"`
	Metrics string `json:"metrics,omitempty"`
}

// UpstreamInfo is a physical cluster.
type UpstreamInfo struct {
	Name      string `json:"name"`
	Bootstrap string `json:"bootstrap"`
}

// VirtualCluster is a tenant's Kafka and its logins.
type VirtualCluster struct {
	Name            string           `json:"name"`
	Tenant          string           `json:"tenant"`
	Type            string           `json:"type"`
	Bootstrap       string           `json:"bootstrap"`
	PortBootstrap   string           `json:"portBootstrap,omitempty"`
	Topics          []Topic          `json:"topics"`
	ServiceAccounts []ServiceAccount `json:"serviceAccounts"`
}

func (vc *VirtualCluster) summary() string {
	s := fmt.Sprintf("  %-12s %-8s %s", vc.Name, vc.Type, vc.Bootstrap)
	if vc.PortBootstrap != "" {
		s += ", without TLS " + vc.PortBootstrap
	}
	return s
}

// Topic is an alias topic.
type Topic struct {
	Name     string `json:"name"`
	Cluster  string `json:"cluster"`
	Physical string `json:"physical"`
}

// ServiceAccount is a login. The password is absent where only a verifier is
// known.
type ServiceAccount struct {
	Name       string   `json:"name"`
	Mechanisms []string `json:"mechanisms"`
	Username   string   `json:"username"`
	Password   string   `json:"password,omitempty"`
}

const infoFile = "dev.json"

// Read returns what runs on a state directory.
func Read(state string) (*Info, error) {
	data, err := os.ReadFile(filepath.Join(state, infoFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("nothing serves on %s: start tollgate dev, or name its directory with --state", state)
	}
	if err != nil {
		return nil, err
	}
	i := new(Info)
	if err := json.Unmarshal(data, i); err != nil {
		return nil, fmt.Errorf("read %s: %w", infoFile, err)
	}
	return i, nil
}

func (i *Info) write(state string) error {
	data, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return err
	}
	return WriteFile(filepath.Join(state, infoFile), append(data, '\n'), 0o600)
}

// WriteFile puts a whole file in place: whoever reads it sees the old or the new.
func WriteFile(path string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone after the rename
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}
