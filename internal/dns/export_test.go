package dns

import "time"

// Patience sets how long upstreams have for an answer, so that a slow machine does not look
// like an upstream that is silent.
func (s *Server) Patience(perTry time.Duration) {
	s.forward.patience, s.forward.perTry = time.Minute, perTry
}
