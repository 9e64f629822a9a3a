// Package proxy is the data path: it takes a Table of routes and ports and
// carries requests and connections to their targets. It hides pools of
// connections, balancing, health, retries, drains and certificates. The edge
// knocks; nothing here knows of services beyond the table, and no request ever
// waits for the control plane.
package proxy
