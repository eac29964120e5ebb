# A node: a machine, and who may reach it.

terraform {
  required_version = ">= 1.3"
  required_providers {
    hcloud = {
      source  = "hetznercloud/hcloud"
      version = "~> 1.45"
    }
  }
}

variable "node" {
  type = string
}

variable "location" {
  type = string
}

variable "server_type" {
  type    = string
  default = "cx32"
}

variable "user_data" {
  type      = string
  sensitive = true
}

variable "operators" {
  type = list(string)
}

variable "ssh_keys" {
  type = list(string)
}

resource "hcloud_firewall" "node" {
  name = var.node

  dynamic "rule" {
    for_each = ["80", "443"]

    content {
      direction  = "in"
      protocol   = "tcp"
      port       = rule.value
      source_ips = ["0.0.0.0/0", "::/0"]
    }
  }

  rule {
    direction  = "in"
    protocol   = "tcp"
    port       = "22"
    source_ips = var.operators
  }
}

resource "hcloud_server" "node" {
  name         = var.node
  image        = "debian-12"
  server_type  = var.server_type
  location     = var.location
  ssh_keys     = var.ssh_keys
  user_data    = var.user_data
  firewall_ids = [hcloud_firewall.node.id]

  lifecycle {
    # What a machine was told when it was made is not told again: configurations change by the hub and by Ansible.
    ignore_changes = [user_data, image]
  }
}

output "addresses" {
  value = [hcloud_server.node.ipv4_address, hcloud_server.node.ipv6_address]
}
