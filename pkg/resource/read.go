package resource

import (
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Read reads the objects of a file, whatever its name, or of a directory as
// [LoadDir] does, to be sent to somebody who judges them. Nothing is filled in.
// What only means something beside the file does not leave it: paths become
// absolute, or what is there takes their place (certificates of CAs), and what stands
// in the place of a reference, maybe a secret, is reported.
func Read(path string, problems *Problems) []*Written {
	l := &loader{now: time.Now(), problems: problems}
	absolute, err := filepath.Abs(path)
	if err != nil {
		*problems = append(*problems, Problem{File: path, Message: err.Error()})
		return nil
	}
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		data, err := readFile(path, info)
		if err != nil {
			*problems = append(*problems, Problem{File: path, Message: reason(err)})
			return nil
		}
		l.add(path, filepath.Dir(absolute), data)
	} else {
		l.read(path, absolute, nil)
	}
	resolve(l.objects)
	return l.objects
}

// ReadText is [Read] for what is in no file: name stands for it in problems, and
// paths are relative to baseDir, which is absolute.
func ReadText(name, baseDir string, data []byte, problems *Problems) []*Written {
	objects, _ := parse(name, baseDir, "", data, problems)
	resolve(objects)
	return objects
}

// resolve makes the paths of objects absolute.
func resolve(objects []*Written) {
	for _, o := range objects {
		switch v := o.Object.(type) {
		case *UpstreamCluster:
			if t := v.Spec.TLS; t != nil {
				o.bring("spec.tls.caFile", &t.CAFile, &t.CA)
				o.path("spec.tls.certFile", &t.CertFile)
				o.reference("spec.tls.keyFile", &t.KeyFile)
			}
			if s := v.Spec.SASL; s != nil {
				for field, r := range s.references() {
					o.reference("spec.sasl."+field, r)
				}
				o.path("spec.sasl.caFile", &s.CAFile)
				o.path("spec.sasl.krb5Conf", &s.Krb5Conf)
			}
		case *VirtualCluster:
			if m := v.Spec.Authentication.MTLS; m != nil {
				o.bring("spec.authentication.mtls.caFile", &m.CAFile, &m.CA)
			}
			for i := range v.Spec.Authentication.OAuthBearer {
				url := &v.Spec.Authentication.OAuthBearer[i].JWKSURL
				if path, isFile := filePath(*url); isFile && path != "" {
					o.path("spec.authentication.oauthbearer", &path)
					*url = "file:" + path
				}
			}
		case *ServiceAccount:
			o.reference("spec.password", &v.Spec.Password)
		}
	}
}

// bring puts what is in a file of this machine in the place of its path. An absolute
// path may be meant for the machines of the proxies, and stays.
func (o *Written) bring(field string, path, content *string) {
	if *path == "" || *content != "" || filepath.IsAbs(*path) {
		return
	}
	o.path(field, path)
	text, err := os.ReadFile(*path)
	if err != nil {
		o.Problem(field, "%s", reason(err))
		return
	}
	*path, *content = "", string(text)
}

func (o *Written) reference(field string, r *Reference) {
	if *r != "" {
		o.secret(field, r)
	}
}

// filePath is the path of a file: URL, with or without slashes in front of it.
func filePath(url string) (path string, isFile bool) {
	path, isFile = strings.CutPrefix(url, "file:")
	return strings.TrimPrefix(path, "//"), isFile
}
