package listener

import "errors"

// Pause closes the sockets until Resume: nobody comes in, and those who are in stay.
// What is to be opened meanwhile is opened then.
func (l *Listener) Pause() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped || l.paused != nil {
		return
	}
	l.paused = make(map[socketID]string)
	for id, sock := range l.sockets {
		l.paused[id] = sock.Addr().String() // also of a port that the system has chosen
		l.shut(id, sock)
	}
}

// Resume opens the sockets again, where they were. Those that cannot be are in the
// error, and are tried by the next Resume.
func (l *Listener) Resume() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped || l.paused == nil {
		return nil
	}
	for spec, s := range l.specs {
		id := socketID{spec, Bootstrap}
		if _, was := l.paused[id]; s != nil && !was {
			l.paused[id] = "" // added meanwhile
		}
	}
	var errs []error
	for id, address := range l.paused {
		if l.sockets[id] == nil {
			if err := l.bind(id, address); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		delete(l.paused, id)
	}
	if len(errs) == 0 {
		l.paused = nil
	}
	return errors.Join(errs...)
}
