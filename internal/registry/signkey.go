package registry

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"runtime/debug"
	"sync"

	"golang.org/x/crypto/nacl/secretbox"
	"golang.org/x/crypto/scrypt"

	tender "github.com/tenderhq/tender"
)

// Words before keys in PEM. The first is how cosign writes private ones; it wrote the second before.
const (
	sealedPEM    = "ENCRYPTED SIGSTORE PRIVATE KEY"
	oldSealedPEM = "ENCRYPTED COSIGN PRIVATE KEY"
	privatePEM   = "PRIVATE KEY"
	publicPEM    = "PUBLIC KEY"
)

// SigningKey signs images, or only verifies them: then Signs is false.
type SigningKey struct {
	public  crypto.PublicKey
	private crypto.Signer // nil: there is only the public half
	der     []byte        // PKIX of the public half
}

// NewSigningKey makes one of ECDSA on P-256, as cosign does.
func NewSigningKey() (SigningKey, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return SigningKey{}, fmt.Errorf("make a key: %w", err)
	}
	return privateKey(k)
}

// ReadSigningKey reads a key in PEM: cosign's cosign.key, which a password opens, or cosign.pub;
// also private keys as openssl writes them. Invalid: it is none of these. Denied: the
// password is not right.
func ReadSigningKey(text, password []byte) (SigningKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return SigningKey{}, notAKey("it is no PEM")
	}
	der := block.Bytes
	switch block.Type {
	case publicPEM:
		public, err := x509.ParsePKIXPublicKey(der)
		if err != nil {
			return SigningKey{}, notAKey(err.Error())
		}
		return publicKey(public)
	case sealedPEM, oldSealedPEM:
		var err error
		if der, err = unsealKey(der, password); err != nil {
			return SigningKey{}, err
		}
	case privatePEM, "EC PRIVATE KEY", "RSA PRIVATE KEY":
	default:
		return SigningKey{}, notAKey(fmt.Sprintf("it is a PEM of %q", block.Type))
	}
	var key any
	var err error
	switch block.Type {
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(der)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(der)
	default:
		key, err = x509.ParsePKCS8PrivateKey(der)
	}
	if err != nil {
		return SigningKey{}, notAKey("what is in it cannot be read") // the library's words may quote it
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return SigningKey{}, notAKey(fmt.Sprintf("a %T does not sign", key))
	}
	return privateKey(signer)
}

func notAKey(why string) error {
	return tender.Errorf(tender.Invalid, "this is no key that signs images: %s", why).
		Hint("a cosign.key or cosign.pub of cosign generate-key-pair, or a private key of ECDSA or RSA in PEM")
}

func privateKey(k crypto.Signer) (SigningKey, error) {
	if _, ok := k.(ed25519.PrivateKey); ok {
		return SigningKey{}, notAKey("cosign does not verify what Ed25519 signs with its usual options")
	}
	out, err := publicKey(k.Public())
	out.private = k
	return out, err
}

func publicKey(k crypto.PublicKey) (SigningKey, error) {
	switch k := k.(type) {
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() && k.Curve != elliptic.P521() {
			return SigningKey{}, notAKey("only ECDSA on P-256, P-384 and P-521 is known")
		}
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < 2048 || bits > 8192 {
			return SigningKey{}, notAKey(fmt.Sprintf("RSA of %d bits; want 2048 to 8192", bits))
		}
	case ed25519.PublicKey:
	default:
		return SigningKey{}, notAKey(fmt.Sprintf("%T is not known", k))
	}
	der, err := x509.MarshalPKIXPublicKey(k)
	if err != nil {
		return SigningKey{}, notAKey(err.Error())
	}
	return SigningKey{public: k, der: der}, nil
}

// Signs says whether the private half is there.
func (k SigningKey) Signs() bool { return k.private != nil }

// Kind names the algorithm: ECDSA P-256.
func (k SigningKey) Kind() string {
	switch p := k.public.(type) {
	case *ecdsa.PublicKey:
		return "ECDSA " + p.Curve.Params().Name
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", p.N.BitLen())
	}
	return "Ed25519"
}

// Fingerprint is the SHA-256 of the public half, as cosign's bundles have it: base64.
func (k SigningKey) Fingerprint() string {
	sum := sha256.Sum256(k.der)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Public is the public half in PEM: a cosign.pub.
func (k SigningKey) Public() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: publicPEM, Bytes: k.der})
}

// Plain is the key in PEM, with its private half if there is one: for the vault alone.
func (k SigningKey) Plain() ([]byte, error) {
	if !k.Signs() {
		return k.Public(), nil
	}
	der, err := x509.MarshalPKCS8PrivateKey(k.private)
	if err != nil {
		return nil, fmt.Errorf("write the key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: privatePEM, Bytes: der}), nil
}

// Sealed is the private half as cosign keeps it: a cosign.key that the password opens.
func (k SigningKey) Sealed(password []byte) ([]byte, error) {
	if !k.Signs() {
		return nil, tender.Errorf(tender.Conflict, "only the public half of the key is here").Hint("its private half lies where it was made")
	}
	der, err := x509.MarshalPKCS8PrivateKey(k.private)
	if err != nil {
		return nil, fmt.Errorf("write the key: %w", err)
	}
	sealed, err := sealKey(der, password)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: sealedPEM, Bytes: sealed}), nil
}

// sign signs a message.
func (k SigningKey) sign(message []byte) ([]byte, error) {
	h := crypto.SHA256
	if e, ok := k.public.(*ecdsa.PublicKey); ok {
		h = hashOf(e.Curve)
	}
	return k.private.Sign(rand.Reader, sumOf(h, message), h)
}

// verifies says whether the key made the signature of the message. Which hash it was made
// of depends on who made it: cosign's default is that of the curve, and was SHA-256 for all.
func (k SigningKey) verifies(message, signature []byte) bool {
	switch p := k.public.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(p, sumOf(hashOf(p.Curve), message), signature) ||
			p.Curve != elliptic.P256() && ecdsa.VerifyASN1(p, sumOf(crypto.SHA256, message), signature)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(p, crypto.SHA256, sumOf(crypto.SHA256, message), signature) == nil
	case ed25519.PublicKey:
		return ed25519.Verify(p, message, signature) ||
			ed25519.VerifyWithOptions(p, sumOf(crypto.SHA512, message), signature, &ed25519.Options{Hash: crypto.SHA512}) == nil
	}
	return false
}

// verifiesSum is verifies where the SHA-256 of the message is all there is.
func (k SigningKey) verifiesSum(sum, signature []byte) bool {
	switch p := k.public.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(p, sum, signature)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(p, crypto.SHA256, sum, signature) == nil
	}
	return false
}

func hashOf(c elliptic.Curve) crypto.Hash {
	switch c {
	case elliptic.P384():
		return crypto.SHA384
	case elliptic.P521():
		return crypto.SHA512
	}
	return crypto.SHA256
}

func sumOf(h crypto.Hash, message []byte) []byte {
	switch h {
	case crypto.SHA384:
		sum := sha512.Sum384(message)
		return sum[:]
	case crypto.SHA512:
		sum := sha512.Sum512(message)
		return sum[:]
	}
	sum := sha256.Sum256(message)
	return sum[:]
}

// sealedKey is what lies in a cosign.key: scrypt makes a key of the password, NaCl's
// secretbox seals with it. The format is that of go-securesystemslib's package encrypted.
type sealedKey struct {
	KDF struct {
		Name   string       `json:"name"`
		Params scryptParams `json:"params"`
		Salt   []byte       `json:"salt"`
	} `json:"kdf"`
	Cipher struct {
		Name  string `json:"name"`
		Nonce []byte `json:"nonce"`
	} `json:"cipher"`
	Ciphertext []byte `json:"ciphertext"`
}

type scryptParams struct {
	N int `json:"N"`
	R int `json:"r"`
	P int `json:"p"`
}

const (
	scryptName    = "scrypt"
	secretboxName = "nacl/secretbox"
)

// deriving: one key of a password at a time, for each takes 32 to 128 MB.
var deriving sync.Mutex

func derive(password, salt []byte, p scryptParams) (key [32]byte, err error) {
	deriving.Lock()
	defer deriving.Unlock()
	raw, err := scrypt.Key(password, salt, p.N, p.R, p.P, len(key))
	copy(key[:], raw)
	debug.FreeOSMemory() // what it worked in would stay for minutes
	return key, err
}

func sealKey(der, password []byte) ([]byte, error) {
	var s sealedKey
	s.KDF.Name, s.KDF.Params = scryptName, scryptParams{N: 1 << 16, R: 8, P: 1}
	s.KDF.Salt = make([]byte, 32)
	s.Cipher.Name = secretboxName
	var nonce [24]byte
	rand.Read(s.KDF.Salt) //nolint:errcheck // it never fails
	rand.Read(nonce[:])   //nolint:errcheck // it never fails
	s.Cipher.Nonce = nonce[:]
	key, err := derive(password, s.KDF.Salt, s.KDF.Params)
	if err != nil {
		return nil, fmt.Errorf("seal the key: %w", err)
	}
	s.Ciphertext = secretbox.Seal(nil, der, &nonce, &key)
	return json.Marshal(s)
}

func unsealKey(raw, password []byte) ([]byte, error) {
	var s sealedKey
	if err := json.NewDecoder(bytes.NewReader(raw)).Decode(&s); err != nil {
		return nil, notAKey("what is in it cannot be read")
	}
	// Others would let a file choose how much memory is taken.
	known := s.KDF.Params.R == 8 && s.KDF.Params.P == 1 && (s.KDF.Params.N == 1<<15 || s.KDF.Params.N == 1<<16 || s.KDF.Params.N == 1<<17)
	if s.KDF.Name != scryptName || s.Cipher.Name != secretboxName || !known || len(s.Cipher.Nonce) != 24 {
		return nil, notAKey("it is sealed in another way than cosign seals")
	}
	key, err := derive(password, s.KDF.Salt, s.KDF.Params)
	if err != nil {
		return nil, fmt.Errorf("open the key: %w", err)
	}
	der, ok := secretbox.Open(nil, s.Ciphertext, (*[24]byte)(s.Cipher.Nonce), &key)
	if !ok {
		return nil, tender.Errorf(tender.Denied, "the password does not open the key").Hint("give the one that it was made with: COSIGN_PASSWORD, or --password-stdin")
	}
	return der, nil
}
