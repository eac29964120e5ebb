# What a machine is told when it starts: cloud-init, which installs the package and puts the files of a node in place.

terraform {
  required_version = ">= 1.3"
}

variable "node" {
  description = "The node's name: of the machine, in DNS below `domain`, and at the hub."
  type        = string
}

variable "pop" {
  description = "The point of presence it stands in."
  type        = string
}

variable "domain" {
  description = "What names of nodes end with."
  type        = string
}

variable "package_url" {
  description = "Where the Debian package is; with its SHA-256, as it is installed by root."
  type        = string
}

variable "package_sha256" {
  type = string

  validation {
    condition     = can(regex("^[0-9a-f]{64}$", var.package_sha256))
    error_message = "Expected 64 hexadecimal digits, as sha256sum prints them."
  }
}

variable "hub" {
  description = "Servers of the hub, tls://HOST:PORT."
  type        = list(string)

  validation {
    condition     = length(var.hub) > 0 && alltrue([for server in var.hub : startswith(server, "tls://")])
    error_message = "Expected tls://HOST:PORT, at least one: passwords pass there."
  }
}

variable "hub_password" {
  type      = string
  sensitive = true
}

variable "files" {
  description = "What is put into /etc/littoral/tls, in base64: ca.pem, node.pem, own.key, node.key, store.key, tickets.key."
  type        = map(string)
  sensitive   = true

  validation {
    condition = alltrue([
      for name in ["ca.pem", "node.pem", "own.key", "node.key", "store.key", "tickets.key"] : contains(keys(var.files), name)
    ])
    error_message = "Expected ca.pem, node.pem, own.key, node.key, store.key and tickets.key."
  }
}

variable "memory" {
  type    = string
  default = "2GiB"
}

variable "disk" {
  type    = string
  default = "40GiB"
}

output "text" {
  value = templatefile("${path.module}/user-data.yml.tftpl", {
    node           = var.node
    package_url    = var.package_url
    package_sha256 = var.package_sha256
    files          = var.files
    edge = base64encode(templatefile("${path.module}/edge.toml.tftpl", {
      node     = var.node
      pop      = var.pop
      domain   = var.domain
      hub      = var.hub
      password = var.hub_password
      memory   = var.memory
      disk     = var.disk
    }))
  })
  sensitive = true
}
