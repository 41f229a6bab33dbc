// go-smtp as a peer: a sink that reads each message to its end. gosmtp PORT FOLDER
package main

import (
	"crypto/tls"
	"io"
	"log"
	"os"
	"path/filepath"

	"github.com/emersion/go-smtp"
)

type backend struct{}

func (backend) Login(*smtp.ConnectionState, string, string) (smtp.Session, error) {
	return nil, smtp.ErrAuthUnsupported
}
func (backend) AnonymousLogin(*smtp.ConnectionState) (smtp.Session, error) { return session{}, nil }

type session struct{}

func (session) Reset()                              {}
func (session) Logout() error                       { return nil }
func (session) Mail(string, smtp.MailOptions) error { return nil }
func (session) Rcpt(string) error                   { return nil }
func (session) Data(content io.Reader) error {
	_, err := io.Copy(io.Discard, content)
	return err
}

func main() {
	folder := filepath.Join(os.Args[2], "tls")
	pair, err := tls.LoadX509KeyPair(filepath.Join(folder, "self-signed.pem"), filepath.Join(folder, "self-signed.key"))
	if err != nil {
		log.Fatal(err)
	}
	server := smtp.NewServer(backend{})
	server.Addr = "127.0.0.1:" + os.Args[1]
	server.Domain = "bench.test"
	server.AuthDisabled = true
	server.MaxMessageBytes = 1 << 30
	server.MaxRecipients = 1000
	server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}}
	log.Fatal(server.ListenAndServe())
}
